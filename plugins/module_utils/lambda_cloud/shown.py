# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How instances are shown by Lambda's inventory plugin."""

from __future__ import annotations

from ..listed_boxes import Shown
from .transformations import to_vm, vm_result

SHOWN = Shown(
    to_vm,
    vm_result,
    ("provider_id", "state", "status", "instance_type", "region", "num_gpus", "price_per_hour", "clocks"),
)
