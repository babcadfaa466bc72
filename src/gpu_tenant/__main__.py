# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``python -m gpu_tenant`` is ``gpu-tenant``."""

from __future__ import annotations

from gpu_tenant.cli import main

if __name__ == "__main__":
    main()
