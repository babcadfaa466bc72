# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Ranking: what a useful hour costs, and why nothing was found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.vast import offers as market_offers
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offers import (
    Constraints,
    Work,
    bid_within,
    cost_of,
    price_of,
    ranked,
    reread,
    search,
    search_body,
    to_offer,
)
from hypothesis import given
from hypothesis import strategies as st
from wire_market import WireMarket

WANTED = Constraints(gpu_name="RTX 4090", min_disk_gb=20.0, price_cap=0.5)
MONEY = st.floats(0.01, 5.0)


def offer(offer_id: int = 1, **changes: Any) -> Any:
    return to_offer(WireMarket().offer(offer_id, **changes))


def per_hour(found: Any, wanted: Constraints = WANTED, work: Work | None = None) -> float:
    price = price_of(found, wanted)
    assert price is not None
    return cost_of(found, price, work or Work(), wanted.market).per_useful_hour


def test_the_arithmetic_by_hand() -> None:
    # 0.2 * 1.1 bid, 20 GB at 0.18 $/GB/month over 720 h
    found, work = offer(), Work(hours=4, download_gb=5, upload_gb=1)
    price = price_of(found, WANTED)
    assert price is not None
    assert price.bid == pytest.approx(0.22)
    assert price.total == pytest.approx(0.22 + 0.005)
    cost = cost_of(found, price, work, "interruptible")
    assert cost.bandwidth_total == pytest.approx(5 * 0.002 + 0.003)
    assert cost.transfer_hours == pytest.approx(5 * 8000 / 800 / 3600 + 8000 / 400 / 3600)
    assert cost.interruptions_per_hour == pytest.approx(1 / 12 + 0.01 / 0.99)
    hours = 4 * (1 + cost.interruptions_per_hour * 0.25) + cost.transfer_hours
    assert cost.per_useful_hour == pytest.approx((0.225 * hours + 0.013) / 4)


@pytest.mark.parametrize(
    "worse",
    [
        {"min_bid": 0.25},
        {"storage_cost": 0.9},
        {"inet_down_cost": 0.05},
        {"inet_up_cost": 0.05},
        {"inet_down": 50.0},
        {"inet_up": 5.0},
        {"reliability2": 0.8},
        {"reliability2": None},
        {"inet_down_cost": None},
        {"inet_down": None},
    ],
)
def test_each_drawback_costs(worse: dict[str, Any]) -> None:
    assert per_hour(offer(**worse)) > per_hour(offer())


def test_a_cheap_hour_on_a_dear_line_loses() -> None:
    rows = [offer(1, min_bid=0.20, inet_down_cost=0.04), offer(2, min_bid=0.23)]
    work = Work(hours=4, download_gb=50)
    assert [found.offer_id for found, _price, _cost in ranked(rows, WANTED, work)] == [2, 1]
    assert [found.offer_id for found, _price, _cost in ranked(rows, WANTED, Work(hours=4, download_gb=0))] == [1, 2]


@given(st.lists(st.tuples(MONEY, MONEY, st.floats(0.5, 1.0)), min_size=1, max_size=8), MONEY)
def test_ranking_is_sorted_total_and_within_the_cap(rows: list[tuple[float, float, float]], cap: float) -> None:
    found = [
        offer(number, min_bid=bid, storage_cost=storage, reliability2=reliability)
        for number, (bid, storage, reliability) in enumerate(rows, 1)
    ]
    wanted = replace(WANTED, price_cap=cap)
    best = ranked(found, wanted, Work())
    costs = [cost.per_useful_hour for _offer, _price, cost in best]
    assert costs == sorted(costs)
    for one, price, _cost in best:
        assert price.total <= cap + 1e-6
        assert price.bid is not None
        assert price.bid + 1e-6 >= one.min_bid
    assert ranked(list(reversed(found)), wanted, Work()) == best, "the order in which the market lists is no reason"
    affordable = [one for one in found if one.min_bid + one.storage_per_hour(20.0) <= cap - 2e-4]
    assert {one.offer_id for one in affordable} <= {one.offer_id for one, _price, _cost in best}


@given(MONEY, st.floats(0, 1), st.floats(0.01, 6), st.none() | MONEY)
def test_a_bid_never_passes_the_cap(min_bid: float, storage: float, cap: float, own: float | None) -> None:
    wanted = replace(WANTED, price_cap=cap, bid=own)
    assert bid_within(min_bid, storage, wanted) + storage <= cap + 1e-6


def test_the_search_asks_the_server_for_what_matters() -> None:
    body = search_body(
        replace(
            WANTED, min_gpu_ram_gb=24, min_cuda=12.4, min_reliability=0.98, direct_ports=2, exclude_machines=(9, 4)
        ),
        64,
    )
    assert body["gpu_ram"] == {"gte": 24000.0}
    assert body["machine_id"] == {"notin": [4, 9]}
    assert body["type"] == "bid"
    assert body["allocated_storage"] == 20.0
    assert body["verified"] == {"eq": True}
    assert search_body(replace(WANTED, market="on-demand", query={"verified": {}}), 5)["verified"] == {}
    assert search_body(replace(WANTED, market="on-demand"), 5)["type"] == "on-demand"


def test_underscores_and_case_do_not_hide_a_gpu() -> None:
    assert ranked([offer()], replace(WANTED, gpu_name="rtx_4090"), Work())


def test_what_the_host_does_not_say_does_not_pass_a_constraint() -> None:
    assert not ranked([offer(reliability2=None)], replace(WANTED, min_reliability=0.5), Work())
    assert not ranked([offer(storage_cost=None)], WANTED, Work())
    assert not ranked([offer(gpu_ram=None)], replace(WANTED, min_gpu_ram_gb=1), Work())


def test_nothing_found_says_what_excludes_how_many_and_the_price_that_would_do() -> None:
    market = WireMarket()
    market.offer(1, min_bid=0.9)
    market.offer(2, min_bid=0.8)
    market.offer(3, reliability2=0.5)
    wanted = replace(WANTED, min_reliability=0.9)
    with pytest.raises(TenantFailure) as caught:
        search(market.client(), wanted, Work(), 10)
    failure = caught.value
    assert failure.kind == "no_offer"
    assert "none of 3 offers" in failure.what
    assert "price_cap 0.5 excludes 2" in failure.what
    assert "min_reliability 0.9 excludes 1" in failure.what
    assert "0.8050" in failure.fix
    assert failure.safe == "nothing was rented"


def test_an_unknown_gpu_is_told_from_a_dear_one() -> None:
    market = WireMarket()
    market.offer(1)
    with pytest.raises(TenantFailure, match="no offer at all of 1 x RTX 9999"):
        search(market.client(), replace(WANTED, gpu_name="RTX 9999"), Work(), 10)


def test_every_offer_says_why() -> None:
    market = WireMarket()
    market.offer(1)
    market.offer(2, inet_up_cost=None, min_bid=0.3)
    best = search(market.client(), WANTED, Work(), 10)
    assert [row["id"] for row in best] == [1, 2]
    assert "per useful hour" in best[0]["why"]
    assert "assumed bandwidth at $0.05/GB" in best[1]["why"]
    assert to_offer(best[0]) == to_offer(market.offers[1]) or best[0]["id"] == 1


def test_listed_offers_are_read_again_in_their_order() -> None:
    market = WireMarket()
    market.offer(1)
    market.offer(2, min_bid=0.44)
    found = reread(market.client(), [{"id": 2, "min_bid": 0.1}, 3, "1", 2], WANTED)
    assert [(one.offer_id, one.min_bid) for one in found] == [(2, 0.44), (1, 0.2)]
    for bad in ({"id": None}, "x", True, -1):
        with pytest.raises(TenantFailure, match="neither"):
            reread(market.client(), [bad], WANTED)


def test_the_assumptions_are_stated() -> None:
    assert market_offers.MEAN_HOURS_TO_OUTBID > 0
    with pytest.raises(TenantFailure, match="hours_expected"):
        Work.from_options({"hours_expected": 0.0, "download_gb": 1.0, "upload_gb": 1.0})
    for name in ("num_gpus", "min_disk_gb", "price_cap", "bid"):
        with pytest.raises(TenantFailure, match=name):
            Constraints.from_options({name: -1})
