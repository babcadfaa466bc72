# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Readings of what no source settles, each of which a client of ours has to stand."""

from __future__ import annotations

import dataclasses

from gpu_tenant.marketplace.dialects import USUAL, Dialect, switches

# Those that differ from the usual one in one switch.
SINGLE = [dataclasses.replace(USUAL, **{name: value}) for name, values in switches().items() for value in values[1:]]
# Nothing as most sources say: switches that only together mislead a client.
CONTRARY = Dialect(**{name: values[-1] for name, values in switches().items()})
