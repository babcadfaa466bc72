# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a look at a box of a group tells before a launch, when nothing is the matter."""

from __future__ import annotations

from typing import Any

PARTS = ["a", "b", "c"]
ENVIRONMENT = {"torch": "2.9.1", "cuda": "12.8", "nccl": "2.27.3", "python": "3.11.7", "packages": {"numpy": "2.0.1"}}
READY: dict[str, Any] = {
    "spec_sha256": "5" * 64,
    "state": "queued",
    "live": False,
    "launch": None,
    "refusals": [],
    "code_problem": "",
    "environment": ENVIRONMENT,
    "environment_problem": "",
    "interface": "eth0",
    "network_problem": "",
    "clock_skew_s": 0.1,
    "clock_uncertainty_s": 0.05,
}
