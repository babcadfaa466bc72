# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The released client with more instances than a page holds, and with volumes; on the engine without boxes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from marketplace_tools import Tenant
from test_marketplace_cli import VASTAI, OfficialClient

from gpu_tenant.marketplace.testing import running_marketplace

INSTANCES, PAGE = 30, 25
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not VASTAI.exists(), reason="the official client is not installed beside this Python"),
]


@pytest.fixture(scope="module")
def vastai(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OfficialClient]:
    with running_marketplace("none", speed=3600.0, options=("--boot-s", "0")) as market:
        yield OfficialClient(Tenant(market, tmp_path_factory.mktemp("client")))


def test_every_page_is_shown(vastai: OfficialClient) -> None:
    market = vastai.tenant.market
    numbers = []
    for offer in vastai.tenant.offers(limit=INSTANCES):
        body = {"image": "debian:12", "disk": 10, "price": offer["min_bid"], "label": "many"}
        numbers.append(market.request("PUT", f"/api/v0/asks/{offer['id']}/", body)["new_contract"])
    assert len(numbers) == INSTANCES > PAGE
    assert [row["id"] for row in vastai.raw("show", "instances")] == numbers
    first = vastai.raw("show", "instances", "--limit", str(PAGE))
    assert [row["id"] for row in first["instances"]] == numbers[:PAGE]
    assert first["total_instances"] == INSTANCES
    rest = vastai.raw("show", "instances", "--limit", str(PAGE), "--next-token", first["next_token"])
    assert ([row["id"] for row in rest["instances"]], rest["next_token"]) == (numbers[PAGE:], None)


def test_a_volume_is_rented_shown_and_deleted(vastai: OfficialClient) -> None:
    market = vastai.tenant.market
    offer = vastai.raw("search", "volumes", "disk_space>=15")[0]
    made = vastai.raw("create", "volume", str(offer["id"]), "-s", "15", "-n", "data_set")
    (shown,) = vastai.raw("show", "volumes")
    assert (f"V.{shown['id']}", shown["disk_space"], shown["label"]) == (made["volume_name"], 15, "data_set")
    assert "data_set" in vastai("show", "volumes")
    vastai("delete", "volume", str(shown["id"]))
    assert vastai.raw("show", "volumes") == []
    (line,) = market.bill()["volumes"]
    assert line["amount"] > 0
    assert market.bill()["volumes"] == [line], "a volume that is gone costs no more"
