# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How pods are shown by RunPod's inventory plugin."""

from __future__ import annotations

from ..listed_boxes import Shown
from .transformations import pod_result, to_pod

SHOWN = Shown(
    to_pod,
    pod_result,
    ("provider_id", "state", "machine_id", "gpu_type", "num_gpus", "data_center", "price_per_hour", "clocks"),
)
