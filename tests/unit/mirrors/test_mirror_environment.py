# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The environment file of the shipped platforms: where Xet and hf_transfer are off whatever was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.mirrors import order, task
from ansible_collections.tenant.gpu.plugins.module_utils.mirrors.choice import DIRECT, GOOD, Choice, Sample

ROOT = Path(__file__).resolve().parents[3]
CLASSES = yaml.safe_load((ROOT / "roles/mirrors/defaults/main.yml").read_text())["mirrors_classes"]
HUB = CLASSES["hf"]["direct"]
OFF = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_ENABLE_HF_TRANSFER": "0"}


def environment(platform: str, samples: list[Sample]) -> dict[str, str]:
    """What is written for a box of ``platform`` whose Hub is good directly, past its proxy."""
    profile: dict[str, Any] = yaml.safe_load((ROOT / f"inventories/profiles/group_vars/{platform}.yml").read_text())
    asked = order.order_of(
        {
            "classes": CLASSES, "candidates": profile["platform_mirrors"], "proxy_hook": profile["platform_proxy_hook"],
            "no_proxy": profile["platform_no_proxy"], "stall_s": 5, "within_s": 20, "margin": 1.5, "valid_s": 1,
        }
    )  # fmt: skip
    chosen = {"hf": Choice(DIRECT, HUB, "plain")} if samples else {}
    return task._environment(asked, chosen, samples)


@pytest.mark.parametrize("samples", [[], [Sample("hf", DIRECT, HUB, "plain", GOOD, 0.1)]], ids=["unmeasured", "good"])
@pytest.mark.parametrize(
    ("platform", "off"), [("autodl", True), ("gpushare", True), ("matpool", False), ("vast", False), ("slurm", False)]
)
def test_a_platform_with_a_proxy_hook_has_neither_xet_nor_hf_transfer(
    platform: str, off: bool, samples: list[Sample]
) -> None:
    found = environment(platform, samples)
    assert {name: found[name] for name in OFF if name in found} == (OFF if off else {})
    assert ("TENANT_PROXY_HOOK" in found) is off
