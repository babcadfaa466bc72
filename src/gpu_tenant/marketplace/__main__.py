# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``python -m gpu_tenant.marketplace serve …``"""

from __future__ import annotations

from .commands import main

if __name__ == "__main__":
    main()
