# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A local marketplace that speaks vast.ai's REST and lets real boxes, for rehearsals, tests and the quick start."""

from __future__ import annotations

from .config import MarketplaceConfig
from .server import serve

__all__ = ["MarketplaceConfig", "serve"]
