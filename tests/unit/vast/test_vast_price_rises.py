# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Hosts that raise their prices: the market asks, the policy answers, and nothing is paid that nobody consented to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.vast.price_rises import rises_of, verdict_on
from ansible_collections.tenant.gpu.plugins.module_utils.vast.transformations import to_box
from faulty_market import ORDER, FaultyMarket
from wire_market import WireMarket

from gpu_tenant.marketplace.state import state_as_dict, state_from_dict

DAY_S = 86400.0


class RaisedMarket(FaultyMarket):
    """A box on demand whose host asks more of it."""

    def rented(self, market: str = "on-demand") -> dict[str, Any]:
        self.wanted = replace(ORDER.wanted, market=market)
        self.box: dict[str, Any] = self.converge("started", wanted=self.wanted)["instance"]
        return self.box

    def raised(self, **prices: float) -> int:
        body = {"instance": int(self.box["provider_id"]), **prices}
        reply = self.request("POST", "/control/price_rise", body)
        assert reply.status == 200, reply.body
        return int(reply.body["pending_price_increase_id"])

    def looked(self, policy: str, cap: float = 50.0, check: bool = False) -> dict[str, Any]:
        wanted = replace(self.wanted, price_cap=cap)
        return self.converge("started", wanted=wanted, price_rises=policy, check=check)

    def pending(self) -> list[dict[str, Any]]:
        listed = self.request("GET", "/api/v0/instances/pending-price-increases/", {}).body
        rows: list[dict[str, Any]] = listed["pending_price_increases"]
        return rows

    def row(self) -> dict[str, Any]:
        return self.rows()[int(self.box["provider_id"])]


@pytest.fixture
def market(tmp_path: Path) -> RaisedMarket:
    made = RaisedMarket(tmp_path)
    made.rented()
    return made


def test_a_box_whose_price_is_what_it_was_says_nothing(market: RaisedMarket) -> None:
    result = market.looked("accept")
    assert (result["changed"], result["price_rises"]) == (False, [])
    assert "warnings" not in result


def test_by_default_a_rise_is_told_and_changes_nothing(market: RaisedMarket) -> None:
    paid = market.box["price_per_hour"]
    number = market.raised(compute_per_hour=paid * 2)
    result = market.looked("tell")
    (told,) = result["price_rises"]
    assert (told["id"], told["verdict"], told["objection"]) == (number, "told", "")
    disk = market.box["clocks"]["stopped_per_hour"]
    assert told["new_price_per_hour"] == pytest.approx(paid * 2 + disk, abs=1e-5)
    assert not result["changed"]
    assert "price_rises: accept" in result["warnings"][0]
    assert [row["pending_price_increase_id"] for row in market.pending()] == [number]
    assert market.row()["dph_total"] == pytest.approx(paid)


def test_a_rise_within_the_cap_is_accepted_once_and_billed_from_then_on(market: RaisedMarket) -> None:
    paid = market.box["price_per_hour"]
    market.raised(compute_per_hour=paid * 2, storage_per_gb_month=1.5)
    predicted = market.looked("accept", check=True)
    assert predicted["changed"]
    assert predicted["price_rises"][0]["verdict"] == "accepted"
    assert market.pending(), "check mode answers nothing"
    market.sleep(3600)
    before = market.market.money.bill()["total"]
    accepted = market.looked("accept")
    assert accepted["diff"] == predicted["diff"]
    new = paid * 2 + 1.5 * 20 / 720
    assert accepted["instance"]["price_per_hour"] == pytest.approx(new, abs=1e-5)
    market.sleep(3600)
    assert market.market.money.bill()["total"] - before == pytest.approx(new, rel=0.01)
    assert before == pytest.approx(paid, rel=0.05), "the hour before was billed at the old price"
    again = market.looked("accept")
    assert (again["changed"], again["price_rises"], market.pending()) == (False, [], [])
    verbs = [line["verb"] for line in Journal(market.store).lines() if line["kind"] == "effect"]
    assert verbs.count("accept_price_rise") == 1


@pytest.mark.parametrize(("policy", "verdict"), [("accept", "told"), ("accept_or_reject", "rejected")])
def test_a_rise_above_the_cap_is_never_accepted(market: RaisedMarket, policy: str, verdict: str) -> None:
    paid = market.box["price_per_hour"]
    market.raised(compute_per_hour=60.0, ends_in_s=DAY_S)
    result = market.looked(policy, cap=paid + 1)
    assert result["price_rises"][0]["verdict"] == verdict
    assert f"price_cap is ${paid + 1}" in result["warnings"][0]
    assert "rental ends" in result["warnings"][0]
    assert bool(market.pending()) == (verdict == "told")
    assert market.row()["dph_total"] == pytest.approx(paid)


def test_a_contract_that_nobody_extended_ends_and_starts_no_more(market: RaisedMarket) -> None:
    market.raised(compute_per_hour=60.0, ends_in_s=DAY_S)
    market.looked("accept_or_reject", cap=market.box["price_per_hour"] + 1)
    assert market.row()["end_date"] == pytest.approx(market.market.clock.now() + DAY_S, abs=60)
    market.sleep(DAY_S - 120)
    assert market.row()["cur_state"] == "running"
    market.sleep(240)
    assert (market.row()["cur_state"], market.row()["status_msg"]) == ("stopped", "stopped: the contract ended")
    with pytest.raises(TenantFailure, match="ended"):
        market.looked("tell")


def test_an_accepted_rise_extends_the_contract_again(market: RaisedMarket) -> None:
    market.raised(compute_per_hour=2.0, ends_in_s=DAY_S)
    market.looked("accept")
    market.sleep(2 * DAY_S)
    assert market.row()["cur_state"] == "running"


def test_only_the_disk_of_a_bid_can_get_dearer(tmp_path: Path) -> None:
    market = RaisedMarket(tmp_path)
    market.rented("interruptible")
    body = {"instance": int(market.box["provider_id"]), "compute_per_hour": 5.0}
    assert market.request("POST", "/control/price_rise", body).status == 400
    market.raised(storage_per_gb_month=3.6)
    (accepted,) = market.looked("accept")["price_rises"]
    assert accepted["new_price_per_hour"] == pytest.approx(market.box["bid"] + 3.6 * 20 / 720, abs=1e-5)


def test_the_demand_outlives_the_market_and_a_stale_answer_is_refused(market: RaisedMarket) -> None:
    number = market.raised(compute_per_hour=2.0)
    state = market.market.books.state
    assert state_from_dict(state_as_dict(state)).rises == state.rises
    path, body = "/api/v0/instances/reject-price-increase/", {"pending_price_increase_id": number}
    assert market.request("PUT", path, {**body, "client_id": "me"}).status == 400
    assert market.request("PUT", path, body).body["contract_id"] == int(market.box["provider_id"])
    stale = market.request("PUT", path, body)
    assert (stale.status, stale.body["error"]) == (404, "no_pending_price_increase")
    assert market.client().answer_price_rise(number, accept=True) is False


@pytest.mark.parametrize(
    ("row", "price", "verdict"),
    [
        ({"new_gpu_costpersec": 0.5 / 3600}, 0.505, "accepted"),
        ({"new_disk_ram_costpersec": 0.36 / 2_592_000}, 0.45, "accepted"),
        ({"new_gpu_costpersec": 9 / 3600}, 9.005, "rejected"),
        ({"new_bwd_cost": 0.02, "old_bwd_cost": 0.01}, 0.445, "rejected"),
        ({"new_bwd_cost": 0.01, "old_bwd_cost": 0.02}, 0.445, "accepted"),
        ({"new_platform_fee": 0.4, "old_platform_fee": 0.2}, None, "told"),
        ({}, 0.445, "accepted"),
    ],
)
def test_what_it_would_cost_by_hand(row: dict[str, Any], price: float | None, verdict: str) -> None:
    box = to_box(WireMarket().add("x", is_bid=False, dph_base=0.44, dph_total=0.445))
    (rise,) = rises_of(box, [{"pending_price_increase_id": 1, "contract_id": int(box.provider_id), **row}])
    assert rise.price_per_hour == (None if price is None else pytest.approx(price))
    assert verdict_on(rise, "accept_or_reject", 1.0) == verdict
    assert verdict_on(rise, "tell", 1.0) == "told"
    assert rises_of(box, [{"pending_price_increase_id": 1, "contract_id": 7}]) == []


def test_a_question_that_fails_is_told_and_stops_nothing(market: RaisedMarket) -> None:
    market.inject("server_error", "money", times=None, status=500)
    result = market.looked("accept")
    assert result["instance"]["state"] == "running"
    assert "is not known" in result["warnings"][0]
    assert not result["changed"]
