# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""An account whose credit ends: what its market does, and what our client says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.vast.money import account_info
from faulty_market import FaultyMarket

from gpu_tenant.marketplace.solvency import GRACE_S
from gpu_tenant.marketplace.state import state_as_dict, state_from_dict

HOUR_S = 3600.0


@pytest.fixture
def market(tmp_path: Path) -> FaultyMarket:
    """Credit for some hours of one box, whose id is in ``box``."""
    return FaultyMarket(tmp_path, credit=1.0)


def row(market: FaultyMarket, box: dict[str, Any]) -> dict[str, Any]:
    return market.rows()[int(box["provider_id"])]


def pass_until_broke(market: FaultyMarket, box: dict[str, Any]) -> float:
    """Hours that the credit lasted."""
    hours = 0.0
    while row(market, box)["cur_state"] == "running":
        market.sleep(60.0)
        hours += 60.0 / HOUR_S
        assert hours < 100
    return hours


def test_the_credit_ends_when_it_is_used_up_and_every_box_stops(market: FaultyMarket) -> None:
    box = market.converge("started")["instance"]
    other = market.rent_for_another()
    each = [one["dph_total"] for one in market.rows().values()]
    hours = pass_until_broke(market, box)
    assert hours == pytest.approx(1.0 / sum(each), abs=0.1)
    assert {one["cur_state"] for one in market.rows().values()} == {"stopped"}
    assert "scheduled for deletion" in row(market, box)["status_msg"]
    assert other in market.rows()


def test_without_credit_nothing_is_rented_or_started_and_the_reason_is_said(market: FaultyMarket) -> None:
    box = market.converge("started")["instance"]
    pass_until_broke(market, box)
    for order in ({}, {"name": "vast-b"}):
        with pytest.raises(TenantFailure) as caught:
            market.converge("started", **order)
        assert caught.value.kind == "budget"
        assert "Your account has no credit left" in caught.value.what
        assert "pay in" in caught.value.fix
    assert market.count("PUT", "asks") == 2, "no other offer was tried for the second box"
    assert len(market.rows()) == 1
    refused = market.request("PUT", "/api/v0/volumes/", {"id": 60_012_000, "size": 10})
    assert (refused.status, refused.body["error"]) == (400, "missing_billing")
    assert account_info(market.client())["credit"] <= 0


def test_what_nobody_paid_for_is_deleted_a_day_later(market: FaultyMarket) -> None:
    box = market.converge("started")["instance"]
    pass_until_broke(market, box)
    market.sleep(GRACE_S - HOUR_S)
    assert row(market, box)["cur_state"] == "stopped"
    market.sleep(2 * HOUR_S)
    assert market.rows() == {}


def test_who_pays_in_time_keeps_the_disk_and_may_start_again(market: FaultyMarket) -> None:
    box = market.converge("started")["instance"]
    pass_until_broke(market, box)
    owed = market.market.money.credit()
    paid = market.request("POST", "/control/credit", {"amount": 5.0})
    assert paid.body["credit"] == pytest.approx(5.0 + owed)
    market.sleep(2 * GRACE_S)
    assert row(market, box)["cur_state"] == "stopped", "it is for the tenant to start it"
    assert market.converge("started")["instance"]["state"] == "running"


def test_what_is_owed_outlives_the_market(market: FaultyMarket) -> None:
    pass_until_broke(market, market.converge("started")["instance"])
    state = market.market.books.state
    again = state_from_dict(state_as_dict(state))
    assert (again.unpaid_since, again.paid_in) == (state.unpaid_since, state.paid_in)
    assert again.unpaid_since is not None


def test_an_account_without_an_end_never_stops(tmp_path: Path) -> None:
    market = FaultyMarket(tmp_path)
    box = market.converge("started")["instance"]
    market.sleep(10_000 * HOUR_S)
    assert market.market.money.credit() < 0
    assert row(market, box)["cur_state"] == "running"
