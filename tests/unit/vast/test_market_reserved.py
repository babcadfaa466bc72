# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the market does for a deposit: the discount, what is left, and what comes back. The figures are its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reserved_market import DAY_S, HOUR_S, MONTH_H, ReservedMarket

from gpu_tenant.marketplace import billing, reservations
from gpu_tenant.marketplace.state import state_as_dict, state_from_dict


@pytest.fixture
def market(tmp_path: Path) -> ReservedMarket:
    return ReservedMarket(tmp_path)


@pytest.mark.parametrize(("months", "discount"), [(1, 0.2), (3, 0.3), (6, 0.4), (12, 0.4)])
def test_the_discount_is_that_of_the_markets_help(months: float, discount: float) -> None:
    assert reservations.discount_for(months) == pytest.approx(discount)
    assert reservations.months_for(months * MONTH_H * (1 - discount), 1.0) == pytest.approx(months, rel=1e-6)


@given(st.floats(1e-3, 1e5), st.floats(0.01, 100.0))
def test_more_money_is_more_months_and_never_less_discount(amount: float, price: float) -> None:
    months, more = reservations.months_for(amount, price), reservations.months_for(amount * 1.5, price)
    assert months < more
    assert reservations.discount_for(months) <= reservations.discount_for(more) <= billing.MOST_DISCOUNT
    paid = months * MONTH_H * price * (1 - reservations.discount_for(months))
    assert paid == pytest.approx(amount, rel=1e-6)


def test_a_month_that_is_given_back_after_half_of_it_costs_the_full_price(market: ReservedMarket) -> None:
    """The market's own example: 720 a month is 576 paid ahead; given back after 15 days, 216 come back."""
    instance = market.rented()
    hourly, before = market.row(instance)["dph_base"], market.market.money.credit()
    answer = market.prepay(instance, 0.8 * MONTH_H * hourly)
    assert (answer["timescale"], answer["discount_rate"]) == (pytest.approx(1.0), pytest.approx(0.2))
    assert market.market.money.credit() == pytest.approx(before - 0.8 * MONTH_H * hourly)
    row = market.row(instance)
    assert row["discounted_dph_total"] == pytest.approx(row["dph_total"] - 0.2 * hourly)
    market.sleep(15 * DAY_S)
    left = market.deposit(instance)
    assert market.row(instance)["credit_balance"] == pytest.approx(0.4 * MONTH_H * hourly)
    assert left["total_discount"] == pytest.approx(0.1 * MONTH_H * hourly)
    assert left["refundable_deposit"] == pytest.approx(0.3 * MONTH_H * hourly)
    assert left["discount_months"] == pytest.approx(0.5)
    assert market.request("DELETE", f"/api/v0/instances/{instance}/", {}).status == 200
    paid = {item["type"]: item["amount"] for item in market.charged(instance) if item["amount"]}
    assert paid["deposit"] == pytest.approx(0.1 * MONTH_H * hourly)
    assert market.market.money.credit() == pytest.approx(before - 0.5 * MONTH_H * hourly - paid["disk"], rel=1e-6)


def test_a_used_up_deposit_ends_the_discount_at_that_moment(market: ReservedMarket) -> None:
    instance = market.rented()
    hourly = market.row(instance)["dph_base"]
    discount = market.prepay(instance, 10 * hourly)["discount_rate"]
    lasts = 10 / (1 - discount)
    market.sleep((lasts + 5) * HOUR_S)
    row = market.row(instance)
    assert (row["credit_balance"], row["credit_discount"]) == (0.0, 0.0)
    spent = [item["amount"] for item in market.charged(instance) if item["type"] == "gpu"]
    assert spent[-2:] == [pytest.approx(10 * hourly), pytest.approx(5 * hourly)]


def test_a_second_deposit_counts_with_what_is_left_of_the_first(market: ReservedMarket) -> None:
    instance = market.rented()
    hourly = market.row(instance)["dph_base"]
    market.prepay(instance, 0.8 * MONTH_H * hourly)
    answer = market.prepay(instance, (3 * 0.7 - 0.8) * MONTH_H * hourly)
    assert (answer["timescale"], answer["discount_rate"]) == (pytest.approx(3.0), pytest.approx(0.3))


def test_a_deposit_waits_while_its_box_rests_and_survives_a_restart(market: ReservedMarket) -> None:
    instance = market.rented()
    market.prepay(instance, 100.0)
    market.request("PUT", f"/api/v0/instances/{instance}/", {"state": "stopped"})
    resting = market.deposit(instance)
    market.sleep(10 * DAY_S)
    assert market.deposit(instance) == resting
    state = state_from_dict(state_as_dict(market.market.books.state))
    assert state.instances[instance] == market.market.books.state.instances[instance]
    market.request("PUT", f"/api/v0/instances/{instance}/", {"state": "running"})
    market.sleep(1.0)
    row = market.row(instance)
    assert row["credit_discount"] == row["discounted_hourly"] / row["dph_base"] > 0


def test_deposits_are_listed_as_payments(market: ReservedMarket) -> None:
    instance = market.rented()
    for amount in (5.0, 7.0):
        market.prepay(instance, amount)
        market.sleep(1.0)
    paid = market.request("GET", "/api/v1/invoices/", {}).body["results"]
    assert [(one["type"], one["source"], one["amount"]) for one in paid] == [
        ("reserved", "instance_prepay", 5.0),
        ("reserved", "instance_prepay", 7.0),
    ]
    transfers = 'select_filters={"service":{"in":["transfer"]}}'
    assert market.request("GET", "/api/v1/invoices/", {}, transfers).body["results"] == []


@pytest.mark.parametrize("amount", [0, -1, "much", float("inf"), float("nan"), None])
def test_what_is_no_amount_is_refused(market: ReservedMarket, amount: Any) -> None:
    instance = market.rented()
    assert market.request("PUT", f"/api/v0/instances/prepay/{instance}/", {"amount": amount}).status == 400
    assert market.row(instance)["credit_balance"] is None


def test_more_than_there_is_and_a_bid_are_refused(market: ReservedMarket) -> None:
    instance = market.rented("interruptible")
    assert market.request("PUT", f"/api/v0/instances/prepay/{instance}/", {"amount": 1.0}).status == 400
    other = market.rent_for_another()
    assert market.request("PUT", f"/api/v0/instances/prepay/{other}/", {"amount": 1e9}).status == 411
