# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What mirror_select is asked for: wrong entries are named, and what the project ships is right."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.mirrors import order

ROOT = Path(__file__).resolve().parents[3]
DEFAULTS = yaml.safe_load((ROOT / "roles/mirrors/defaults/main.yml").read_text())
PROFILES = sorted((ROOT / "inventories/profiles/group_vars").glob("*.yml"))
HELLO_CONFIG = "feb5d9fea6a5e9606aa995e879d862b825965ba48de054caab5ef356dc6b3412"
HELLO_LAYER = "2db29710123e3e53a794f2694094b9b4338aa9ee5c40b930cb8063a1be392c54"
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
        ({"classes": {"docker": {**PIP, "probe": {"way": "registry", "sha256": "a" * 64}}}}, "image"),
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


def test_the_image_by_which_registries_are_measured_is_hello_world() -> None:
    """The manifest of hello-world for linux/amd64 as registries serve it: its digest is the hash of these bytes."""
    parts = [
        ("config", "application/vnd.docker.container.image.v1+json", 1469, HELLO_CONFIG),
        ("layers", "application/vnd.docker.image.rootfs.diff.tar.gzip", 2479, HELLO_LAYER),
    ]
    told = {
        name: {"mediaType": media, "size": size, "digest": f"sha256:{digest}"} for name, media, size, digest in parts
    }
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": told["config"], "layers": [told["layers"]]}
    text = json.dumps(manifest, indent=3).encode()
    probe = DEFAULTS["mirrors_classes"]["docker"]["probe"]
    assert probe["image"] == "library/hello-world"
    assert probe["sha256"] == hashlib.sha256(text).hexdigest()
