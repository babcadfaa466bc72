# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One budget for all that a project rents: boxes, volumes, and what other markets let to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.vast import volumes
from ansible_collections.tenant.gpu.plugins.module_utils.vast.actions import Account
from faulty_market import ORDER, FaultyMarket


@pytest.fixture
def market(tmp_path: Path) -> FaultyMarket:
    return FaultyMarket(tmp_path, machines=16, forgetful=True)


def let_volume(market: FaultyMarket) -> float:
    """What it costs an hour."""
    wish = volumes.Wish(ORDER.project, "imagenet", size_gb=100, price_cap=1.0, verified=False)
    made = volumes.converge(Account(market.client(), market.store), wish)["volume"]
    return float(made["price_per_hour"])


def record(market: FaultyMarket, name: str, platform: str, **facts: Any) -> None:
    known = {"provider_id": "xedezhzb9la3ye", "stamp": f"gt1/digits/{name}/g1/0123456789abcdef"}
    market.store.update_box(ORDER.project, name, 1, platform=platform, **{**known, **facts})


def refused(market: FaultyMarket, budget: float) -> TenantFailure:
    with pytest.raises(TenantFailure) as caught:
        market.converge("present", budget_per_hour=budget)
    assert caught.value.kind == "budget"
    assert market.count("PUT", "asks") == 0
    return caught.value


def test_a_volume_counts_with_its_rate_and_stops_no_renting(market: FaultyMarket) -> None:
    rate = let_volume(market)
    assert rate > 0
    assert f"on top of the ${rate:.4f} of 1 volume" in refused(market, rate).what
    made = market.converge("present", budget_per_hour=20.0)
    price = made["instance"]["price_per_hour"]
    with pytest.raises(TenantFailure, match="of 1 box and 1 volume is above the budget_per_hour"):
        market.converge("present", name="vast-b", budget_per_hour=price + rate)


def test_a_volume_that_two_lists_lack_counts_no_more(market: FaultyMarket) -> None:
    let_volume(market)
    number = next(iter(market.market.books.state.volumes))
    assert market.request("DELETE", "/api/v0/volumes/", {}, f"id={number}").status == 200
    assert "of the $0.0000 of 0 boxes" in refused(market, 0.001).what


def test_a_volume_that_one_list_lacks_still_counts(market: FaultyMarket) -> None:
    let_volume(market)
    market.inject("empty_list", "volumes", times=1)
    assert "1 volume" in refused(market, 0.001).what


@pytest.mark.parametrize("platform", ["runpod", "lambda"])
def test_a_box_of_another_market_counts_as_its_record_says(market: FaultyMarket, platform: str) -> None:
    record(market, "pod-a", platform, price_per_hour=0.7)
    assert "on top of the $0.7000 of 1 box" in refused(market, 0.71).what
    assert market.converge("present", budget_per_hour=20.0)["instance"]["state"] == "running"


def test_a_box_of_another_market_whose_price_nobody_knows_is_named(market: FaultyMarket) -> None:
    record(market, "pod-a", "runpod", price_per_hour=None)
    assert "what pod-a (runpod) of the project costs is not known" in refused(market, 20.0).what
    market.store.update_box(ORDER.project, "pod-a", 1, destroyed_at="2026-11-22T00:00:00Z")
    assert market.converge("present", budget_per_hour=20.0)["instance"]["state"] == "running"


def test_a_machine_that_nobody_rented_through_us_is_none_of_the_budget_s(market: FaultyMarket) -> None:
    record(market, "lab", "ssh", provider_id="lab.example.org:22", stamp=None)
    assert market.converge("present", budget_per_hour=20.0)["instance"]["state"] == "running"
