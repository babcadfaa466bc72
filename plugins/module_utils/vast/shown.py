# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How boxes of vast.ai are shown by its inventory plugin."""

from __future__ import annotations

from ..listed_boxes import Shown
from .transformations import box_result, to_box

SHOWN = Shown(
    to_box,
    box_result,
    ("provider_id", "state", "machine_id", "gpu_name", "num_gpus", "market", "price_per_hour", "clocks"),
)
