# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What mirror_select is asked for: wrong entries are named, and what the project ships is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.mirrors import order

ROOT = Path(__file__).resolve().parents[3]
DEFAULTS = yaml.safe_load((ROOT / "roles/mirrors/defaults/main.yml").read_text())
PROFILES = sorted((ROOT / "inventories/profiles/group_vars").glob("*.yml"))
PIP = {"direct": "https://d.example", "probe": {"path": "f", "sha256": "a" * 64}}


def params(**changes: Any) -> dict[str, Any]:
    known = {"classes": {"pip": PIP}, "candidates": [], "proxy_hook": "", "no_proxy": []}
    return {**known, "stall_s": 5, "within_s": 20, "margin": 1.5, "valid_s": 86400, **changes}


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_the_shipped_classes_and_mirrors_can_be_measured(path: Path) -> None:
    candidates = yaml.safe_load(path.read_text())["platform_mirrors"]
    found = order.order_of(params(classes=DEFAULTS["mirrors_classes"], candidates=candidates))
    assert len(found.candidates) == len(candidates)
    assert all(found.sources(kind)[0].name == "direct" for kind in found.classes)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"classes": {"npm": PIP}}, "npm"),
        ({"classes": {"pip": {**PIP, "direct": "ftp://x"}}}, "direct address"),
        ({"classes": {"pip": {**PIP, "probe": {"path": "f"}}}}, "sha256"),
        ({"classes": {"pip": {**PIP, "probe": {"path": "f", "sha256": "A" * 64}}}}, "sha256"),
        ({"classes": {"pip": {**PIP, "probe": {"way": "guess"}}}}, "guess"),
        ({"candidates": [{"class": "pip", "name": "direct", "url": "https://m.example"}]}, "name of its own"),
        ({"candidates": [{"class": "pip", "name": "m", "url": "https://m.example/\nindex-url=x"}]}, "no http address"),
        ({"candidates": [{"class": "hf", "name": "m", "url": "https://m.example"}]}, "class hf"),
        ({"candidates": [{"class": "apt", "name": "m", "url": "https://m.example"}]}, "archive"),
        ({"candidates": [{"class": "pip", "name": "m", "url": "https://m.example"}] * 2}, "'m'"),
        ({"within_s": 0}, "within_s"),
    ],
)
def test_wrong_entries_are_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(TenantFailure, match=named) as caught:
        order.order_of(params(**changes))
    assert caught.value.kind == "config"


def test_a_measurement_is_for_one_question() -> None:
    asked = order.order_of(params())
    assert asked.digest == order.order_of(params(valid_s=1, pip_conf="/x")).digest
    for changes in ({"proxy_hook": "/etc/turbo"}, {"no_proxy": [".x"]}, {"classes": {}}):
        assert asked.digest != order.order_of(params(**changes)).digest
