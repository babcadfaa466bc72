# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Ranking: what a useful hour is expected to cost, and why."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offer_search import search
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offers import Constraints, Price, price_of, to_offer
from ansible_collections.tenant.gpu.plugins.module_utils.vast.ranking import Assumptions, Cost, Work, cost_of, ranked
from ansible_collections.tenant.gpu.plugins.module_utils.vast.reputation import Experience, Reputation
from hypothesis import given
from hypothesis import strategies as st
from wire_market import WireMarket

WANTED = Constraints(gpu_name="RTX 4090", min_disk_gb=20.0, price_cap=0.5)
MONEY = st.floats(0.01, 5.0)
# Every number in an explanation is dollars, or followed by its unit.
BARE_NUMBER = re.compile(r"(?<![$\d.])\d+(?:\.\d+)?(?!\d|\.\d)(?! h\b| min\b| GB\b| Mbit/s|%| boots\b| outbids\b)")


def offer(offer_id: int = 1, **changes: Any) -> Any:
    return to_offer(WireMarket().offer(offer_id, **changes))


def cost(found: Any, wanted: Constraints = WANTED, work: Work | None = None, known: Reputation | None = None) -> Cost:
    price = price_of(found, wanted)
    assert price is not None
    return cost_of(found, price, work or Work(), wanted.market, known or Reputation())


def order(rows: list[Any], wanted: Constraints = WANTED, work: Work | None = None, known: Any = None) -> list[int]:
    return [found.offer_id for found, _price, _cost in ranked(rows, wanted, work or Work(), known or Reputation())]


def test_the_arithmetic_by_hand() -> None:
    # 0.2 * 1.1 bid, 20 GB at 0.18 $/GB/month over 720 h
    found = cost(offer(), work=Work(hours=4, download_gb=5, upload_gb=1))
    assert found.compute == pytest.approx(0.22)
    assert found.disk == pytest.approx(0.005)
    assert found.bandwidth_total == pytest.approx(5 * 0.002 + 0.003)
    assert found.bandwidth == pytest.approx(found.bandwidth_total / 4)
    assert found.transfer_hours == pytest.approx(5 * 8000 / 800 / 3600 + 8000 / 400 / 3600)
    assert found.interruptions_per_hour == pytest.approx(1 / 12 + 0.01 / 0.99)
    assert found.boot_failure == 0.2
    assert found.failed_boots == pytest.approx(0.225 * 0.2 / 0.8 * 0.1 / 4)
    hours = 4 * (1 + found.interruptions_per_hour * 0.25) + found.transfer_hours + 0.25 * 0.1
    assert found.per_useful_hour == pytest.approx((0.225 * hours + 0.013) / 4)
    assert sum(found.parts().values()) == pytest.approx(found.per_useful_hour)


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
        {"verification": "unverified"},
    ],
)
def test_each_drawback_costs(worse: dict[str, Any]) -> None:
    assert cost(offer(**worse)).per_useful_hour > cost(offer()).per_useful_hour


@pytest.mark.parametrize(
    ("drawback", "work", "disk_gb"),
    [
        ({"inet_down_cost": 0.04}, Work(download_gb=50), 20),
        ({"inet_up_cost": 0.04}, Work(upload_gb=50), 20),
        ({"inet_down": 20.0}, Work(download_gb=50), 20),
        ({"storage_cost": 0.4}, Work(), 200),
    ],
    ids=["bandwidth down", "bandwidth up", "a slow line", "disk"],
)
def test_the_cheapest_hour_loses_to(drawback: dict[str, Any], work: Work, disk_gb: float) -> None:
    cheap, fair = offer(1, min_bid=0.20, **drawback), offer(2, min_bid=0.23)
    wanted = replace(WANTED, min_disk_gb=disk_gb)
    assert order([cheap, fair], wanted, work) == [2, 1]
    assert order([offer(1, min_bid=0.20), fair], wanted, work) == [1, 2], "but for its drawback it would have won"


def test_the_cheapest_hour_loses_to_its_machines_reputation() -> None:
    cheap, fair = offer(1, min_bid=0.220), offer(2, min_bid=0.225)
    assert order([cheap, fair]) == [1, 2]
    assert order([cheap, fair], known=Reputation({1: Experience(boots=8, failed_boots=8)})) == [2, 1]
    assert order([cheap, fair], known=Reputation({1: Experience(boots=1, hours=10, outbids=8)})) == [2, 1]
    assert order([cheap, fair], known=Reputation({1: Experience(boots=9, hours=90)})) == [1, 2]


@given(st.lists(st.tuples(MONEY, MONEY, st.floats(0.0, 1.0)), min_size=1, max_size=8), MONEY)
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


@given(
    st.sampled_from(["min_bid", "dph_base", "storage_cost", "inet_down_cost", "inet_up_cost"]),
    st.sampled_from(["interruptible", "on-demand"]),
    st.lists(MONEY, min_size=2, max_size=2),
    st.floats(0.5, 1.0),
    st.integers(0, 9),
)
def test_no_price_that_rises_ever_betters_an_offer(
    column: str, market: str, prices: list[float], reliability: float, failed: int
) -> None:
    low, high = sorted(prices)
    wanted = replace(WANTED, market=market, price_cap=None)
    known = Reputation({1: Experience(9, failed, 20.0, failed)})
    before, after = (offer(1, reliability2=reliability, **{column: price}) for price in (low, high))
    assert cost(after, wanted, known=known).per_useful_hour >= cost(before, wanted, known=known).per_useful_hour - 1e-12
    rivals = [offer(number, min_bid=number / 4, dph_base=number / 3) for number in range(2, 8)]
    place = [order([one, *rivals], wanted, known=known).index(1) for one in (before, after)]
    assert place[0] <= place[1]


def test_every_offer_says_why() -> None:
    market = WireMarket()
    market.offer(1)
    market.offer(2, inet_up_cost=None, min_bid=0.3)
    best = search(market.client(), WANTED, Work(), 10)
    assert [row["id"] for row in best] == [1, 2]
    assert best[0]["why"].startswith("$0.2360 per useful hour of 4 h: $0.2200 bid + $0.0050 disk an hour")
    assert "$0.013 once for 5 GB down and 1 GB up" in best[0]["why"]
    assert "20% of boots fail" in best[0]["why"]
    assert "assumed bandwidth at $0.05/GB" in best[1]["why"]
    assert sum(best[0]["cost_parts"].values()) == pytest.approx(best[0]["cost_per_useful_hour"], abs=1e-5)


@given(
    st.floats(0.001, 5),
    st.none() | st.floats(0.0, 1.0),
    st.none() | st.floats(0.0, 0.5),
    st.none() | st.floats(0.1, 5000.0),
    st.floats(0.01, 1000),
    st.integers(0, 30),
)
def test_no_number_in_why_is_without_its_unit(
    bid: float, reliability: float | None, money: float | None, speed: float | None, hours: float, boots: int
) -> None:
    market = WireMarket()
    market.offer(1, min_bid=bid, reliability2=reliability, inet_down_cost=money, inet_up=speed)
    known = Reputation({1: Experience(boots, boots // 2, boots * 1.5, boots // 3)})
    work = Work(hours, download_gb=hours, upload_gb=hours / 7)
    (row,) = search(market.client(), replace(WANTED, price_cap=None), work, 1, known)
    assert not BARE_NUMBER.findall(row["why"]), row["why"]
    assert bool(boots) == (f"of {boots} boots here" in row["why"])


def test_a_bare_number_would_be_seen() -> None:
    assert BARE_NUMBER.findall("reliability 0.993, 3 h, $0.25 a day, 7 apples, 20% and 4.5 GB") == ["0.993", "7"]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"hours_expected": 0.0}, "hours_expected"),
        ({"download_gb": -1.0}, "download_gb"),
        ({"upload_gb": float("nan")}, "upload_gb"),
        ({"assumptions": {"boot_failure_odds": 1.0}}, "boot_failure_odds is 1.0, it must be at least 0 and at most"),
        ({"assumptions": {"hours_to_outbid": 0}}, "hours_to_outbid is 0.0, it must be above 0"),
    ],
)
def test_work_that_cannot_be_is_named(options: dict[str, Any], word: str) -> None:
    with pytest.raises(TenantFailure, match=re.escape(word)):
        Work.from_options({"hours_expected": 4.0, "download_gb": 1.0, "upload_gb": 1.0, **options})


def test_assumptions_are_options() -> None:
    work = Work.from_options(
        {"hours_expected": 2.0, "download_gb": 0.0, "upload_gb": 0.0, "assumptions": {"boot_failure_odds": 0.5}}
    )
    assert work.assumptions == Assumptions(boot_failure_odds=0.5)
    found = cost_of(offer(), Price(0.3, 0.0, None), work, "on-demand")
    assert found.failed_boots == pytest.approx(0.3 * 1.0 * 0.1 / 2)
