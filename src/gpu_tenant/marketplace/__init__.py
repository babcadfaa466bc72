# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A local marketplace for rehearsals, tests and the quick start, with real boxes.

It speaks the REST of vast.ai, RunPod, Lambda and Paperspace.
"""

from __future__ import annotations

from .config import MarketplaceConfig
from .server import serve

__all__ = ["MarketplaceConfig", "serve"]
