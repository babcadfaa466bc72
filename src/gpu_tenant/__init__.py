# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""gpu-tenant: rent GPU boxes, train resumably, bring verified results home, and only then destroy."""

from __future__ import annotations

__version__ = "0.1.0"
