# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Run specs as jobs of other systems, which then start, recover and end them without us: one file per target."""
