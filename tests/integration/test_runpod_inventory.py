# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The inventory of RunPod's pods through the real ansible-inventory. What it shares with vast.ai's is tested there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.stamp import new_stamp
from tenant_plays import CORES, ROOT
from test_vast_inventory import Team, members, variables

from gpu_tenant.marketplace.testing import Handle, running_marketplace

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def market() -> Iterator[Handle]:
    with running_marketplace("none") as handle:
        yield handle


def rent(market: Handle, name: str) -> str:
    body = {
        "name": name, "image": "debian:12", "gpu": {"id": "NVIDIA GeForce RTX 4090", "count": 1}, "disk": 20,
        "cloud": "COMMUNITY", "ports": ["22/tcp"], "mounts": {"persistent": {"size": 20, "path": "/workspace"}},
    }  # fmt: skip
    return str(market.request("POST", "/v2/pods", body)["id"])


def test_pods_enrich_their_hosts_and_what_nobody_declares_is_shown(market: Handle, tmp_path: Path) -> None:
    team = Team(ROOT / CORES[-1] / "bin", tmp_path, market.url)
    (tmp_path / "ansible.cfg").write_text("[defaults]\n", encoding="utf-8")
    team.write(runpod=["pod-a"], vast=["a1"])
    (tmp_path / "key").write_text(market.api_key + "\n", encoding="utf-8")
    (team.inventory / "vast.yml").unlink()
    team.write_source("runpod.yml", plugin="tenant.gpu.runpod", unstamped=True)
    ours = rent(market, str(new_stamp("demo", "pod-a", 1)))
    orphan = rent(market, str(new_stamp("demo", "pod-b", 3)))
    stranger = rent(market, "somebody's own")

    listed = team.listed()
    assert members(listed, "tenant_platform_runpod") == ["pod-a"]
    box = variables(listed, "pod-a")["runpod_box"]
    assert (box["provider_id"], box["declared"], box["gpu_type"]) == (ours, True, "NVIDIA GeForce RTX 4090")
    assert box["clocks"]["stopped_per_hour"] == pytest.approx(20 * 0.20 / 720)
    assert members(listed, "tenant_undeclared") == [f"demo.pod-b.g3.{orphan}"]
    assert variables(listed, f"demo.pod-b.g3.{orphan}")["runpod_box"]["generation"] == 3
    assert members(listed, "tenant_unstamped") == [f"unstamped.{stranger}"]
    shown = variables(listed, f"unstamped.{stranger}")
    assert shown["ansible_host"] == "not-located.invalid"
    assert not {"host", "port", "user", "stamp"} & set(shown["runpod_box"])
    assert members(listed, "runpod") == ["pod-a"]
    assert market.api_key not in str(listed)
