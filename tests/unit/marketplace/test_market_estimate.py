# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the ranking expects is what the marketplace bills, when what is expected happens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offers import Constraints, price_of, to_offer
from ansible_collections.tenant.gpu.plugins.module_utils.vast.ranking import Assumptions, Cost, Work, cost_of
from test_market_wire import Client

from gpu_tenant.marketplace.clock import MarketClock

DISK_GB = 40.0
SPEED = 3600.0


class Hours:
    """The real clock of an accelerated market, moved by hand: what happens takes no market time but what is told."""

    def __init__(self, client: Client) -> None:
        self._real_s = 0.0
        client.market.books.clock = MarketClock(SPEED, wall=lambda: 1.8e9, monotonic=lambda: self._real_s)

    def pass_by(self, hours: float) -> None:
        self._real_s += hours * 3600 / SPEED


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    made = Client(tmp_path / "state")
    yield made
    made.close()


def chosen(client: Client, market: str) -> dict[str, Any]:
    kind = "bid" if market == "interruptible" else "on-demand"
    rows = client.offers(type=kind, gpu_name={"eq": "RTX 3090"}, num_gpus={"eq": 1}, allocated_storage=DISK_GB)
    return max(rows, key=lambda row: row["inet_down_cost"] + row["inet_up_cost"])


def judged(row: dict[str, Any], market: str, work: Work) -> tuple[float | None, Cost]:
    wanted = Constraints(market=market, min_disk_gb=DISK_GB)
    price = price_of(to_offer(row), wanted)
    assert price is not None
    return price.bid, cost_of(to_offer(row), price, work, market)


def billed(client: Client, number: int) -> float:
    (line,) = [one for one in client.call("GET", "/control/bill")[1]["instances"] if one["id"] == number]
    amount: float = line["amount"]
    return amount


def rented(client: Client, row: dict[str, Any], bid: float | None) -> int:
    return client.running(row, disk=DISK_GB, **({} if bid is None else {"price": bid}))


def move(client: Client, number: int, **gigabytes: float) -> None:
    assert client.call("POST", "/control/traffic", {"instance": number, **gigabytes})[0] == 200


@pytest.mark.parametrize("market", ["interruptible", "on-demand"])
@pytest.mark.parametrize("work", [Work(4, 5, 1), Work(2.5, 60, 20), Work(12, 0, 0)], ids=["small", "traffic", "none"])
def test_an_undisturbed_run_costs_what_was_expected_of_one(client: Client, market: str, work: Work) -> None:
    calm = Work(work.hours, work.download_gb, work.upload_gb, Assumptions(boot_failure_odds=0.0))
    hours, row = Hours(client), chosen(client, market)
    bid, cost = judged({**row, "verification": "verified"}, market, calm)
    number = rented(client, row, bid)
    move(client, number, download_gb=work.download_gb, upload_gb=work.upload_gb)
    hours.pass_by(work.hours + cost.transfer_hours)
    expected = (cost.per_useful_hour - cost.interruptions) * work.hours
    assert billed(client, number) == pytest.approx(expected, rel=0.01)


def test_a_run_that_loses_what_was_expected_costs_what_was_expected(client: Client) -> None:
    """One outbid in four hours, a quarter of an hour done again, and one box of two that never gets to work."""
    assume = Assumptions(hours_to_outbid=2.0, hours_lost_per_interruption=0.25, boot_failure_odds=0.5)
    work = Work(4, 30, 10, assume)
    hours, row = Hours(client), chosen(client, "interruptible")
    # The margin of 10 % doubles the hours to the next outbid: one in four hours.
    row = {**row, "verification": "verified", "reliability2": 1.0, "min_bid": round(row["min_bid"], 3)}
    bid, cost = judged(row, "interruptible", work)
    assert cost.outbids_per_hour == pytest.approx(0.25, rel=0.01)
    assert cost.host_failures_per_hour == 0

    failing = rented(client, row, bid)
    hours.pass_by(assume.hours_per_failed_boot)
    client.call("DELETE", f"/api/v0/instances/{failing}/", {})
    client.wait_until_gone(failing)

    number = rented(client, row, bid)
    move(client, number, download_gb=30)
    hours.pass_by(2 + cost.transfer_hours)
    client.call("POST", "/control/preempt", {"instance": number})
    client.call("POST", "/control/release", {"instance": number})
    client.wait(number, actual_status="running")
    hours.pass_by(2 + 0.25)
    move(client, number, upload_gb=10)
    total = billed(client, failing) + billed(client, number)
    assert total == pytest.approx(cost.per_useful_hour * work.hours, rel=0.01)
    assert total > 1.05 * (cost.compute + cost.disk) * work.hours, "the hourly price alone would have been far off"


@pytest.mark.parametrize("body", [{"download_gb": -1}, {"upload_gb": "much"}, {"instance": 1, "upload_gb": 1}])
def test_traffic_that_cannot_be_is_refused(client: Client, body: dict[str, Any]) -> None:
    number = client.running(client.offers()[0])
    status, answer = client.call("POST", "/control/traffic", {"instance": number, **body})
    assert (status, answer["success"]) in ((400, False), (404, False))
    assert client.call("GET", "/control/bill")[1]["not_metered"] == ["bwd", "bwu"]
