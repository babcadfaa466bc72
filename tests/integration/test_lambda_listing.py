# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The inventory of Lambda's instances through the real ansible-inventory: the plugin's name is a word of Python, so
that only the loaders of the supported cores can say that it is found. What it shares is tested with vast.ai's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.stamp import new_stamp
from tenant_plays import CORES, ROOT
from test_vast_inventory import Team, members, variables

from gpu_tenant.marketplace.lambda_cloud.routes import BASE
from gpu_tenant.marketplace.testing import Handle, running_marketplace

pytestmark = pytest.mark.integration

TYPE, REGION = "gpu_1x_a6000", "us-west-1"
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN0tAKeyThatAnybodyHoldsTheOtherHalfOf0000"


@pytest.fixture(scope="module")
def market() -> Iterator[Handle]:
    with running_marketplace("none") as handle:
        handle.request("POST", f"{BASE}/ssh-keys", {"name": "laptop", "public_key": PUBLIC_KEY})
        yield handle


def launch(market: Handle, name: str) -> str:
    body: dict[str, Any] = {
        "region_name": REGION, "instance_type_name": TYPE, "ssh_key_names": ["laptop"], "file_system_names": [],
        "name": name,
    }  # fmt: skip
    made = market.request("POST", f"{BASE}/instance-operations/launch", body)
    return str(made["data"]["instance_ids"][0])


def test_instances_enrich_their_hosts_and_what_nobody_declares_is_shown(market: Handle, tmp_path: Path) -> None:
    ours = launch(market, str(new_stamp("demo", "vm-a", 1)))
    orphan = launch(market, str(new_stamp("demo", "vm-b", 3)))
    for core in (CORES[0], CORES[-1]):
        folder = tmp_path / core
        folder.mkdir()
        team = Team(ROOT / core / "bin", folder, market.url + BASE)
        (folder / "ansible.cfg").write_text("[defaults]\n", encoding="utf-8")
        team.write(**{"lambda": ["vm-a"], "vast": ["a1"]})
        (folder / "key").write_text(market.api_key + "\n", encoding="utf-8")
        (team.inventory / "vast.yml").unlink()
        team.write_source("lambda.yml", plugin="tenant.gpu.lambda")

        listed = team.listed()
        assert members(listed, "tenant_platform_lambda") == ["vm-a"]
        box = variables(listed, "vm-a")["lambda_box"]
        assert (box["provider_id"], box["declared"], box["instance_type"], box["region"]) == (ours, True, TYPE, REGION)
        assert members(listed, "tenant_undeclared") == [f"demo.vm-b.g3.{orphan}"]
        assert variables(listed, f"demo.vm-b.g3.{orphan}")["lambda_box"]["generation"] == 3
        assert members(listed, "lambda") == ["vm-a"], "no platform group is changed"
        assert market.api_key not in str(listed)
