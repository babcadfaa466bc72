# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A local marketplace for rehearsals, tests and the quick start: the REST of vast.ai, RunPod and Lambda, real boxes."""

from __future__ import annotations

from .config import MarketplaceConfig
from .server import serve

__all__ = ["MarketplaceConfig", "serve"]
