# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``market: reserved``: paid once, within the cap, whatever becomes of the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.creation import SETTLE_S
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast import desired, reservation
from ansible_collections.tenant.gpu.plugins.module_utils.vast.actions import Account
from ansible_collections.tenant.gpu.plugins.module_utils.vast.api import VastClient
from ansible_collections.tenant.gpu.plugins.module_utils.vast.instance_options import desire_of
from ansible_collections.tenant.gpu.plugins.module_utils.vast.reservation import Deposit, Reserve, discount_for
from ansible_collections.tenant.gpu.plugins.modules.vast_instance import SPEC
from reserved_market import DAY_S, HOUR_S, MONTH_H, ON_DEMAND, ReservedMarket

from gpu_tenant.marketplace import reservations

PREPAY = ("PUT", "/prepay/")


@pytest.fixture
def market(tmp_path: Path) -> ReservedMarket:
    return ReservedMarket(tmp_path)


@pytest.mark.parametrize("months", [0.5, 1, 2, 3, 6, 9])
def test_what_we_expect_is_what_the_market_gives(months: float) -> None:
    assert discount_for(months, 0.4) == pytest.approx(reservations.discount_for(months))


def test_a_box_is_rented_on_demand_and_paid_ahead_once(market: ReservedMarket) -> None:
    result = market.reserved(months=1)
    instance = int(result["instance"]["provider_id"])
    row = market.row(instance)
    assert result["reserved"]["paid"] == pytest.approx(0.8 * MONTH_H * row["dph_base"], abs=0.01)
    assert result["reserved"]["months"] == pytest.approx(1.0, rel=1e-3)
    assert result["diff"]["after"]["paid_ahead"] == result["reserved"]["paid"]
    again = market.reserved(months=1)
    assert (again["changed"], again["reserved"].get("paid")) == (False, None)
    assert again["reserved"]["months_left"] == pytest.approx(1.0, rel=1e-2)
    assert market.count(*PREPAY) == 1
    (line,) = [one for one in Journal(market.store).lines() if (one["verb"], one["kind"]) == ("prepay", "effect")]
    assert (line["amount"], line["provider_id"]) == (result["reserved"]["paid"], str(instance))


def test_a_box_on_demand_becomes_a_reserved_one_as_check_mode_said(market: ReservedMarket) -> None:
    instance = market.rented()
    predicted = market.reserved(check=True)
    assert market.row(instance)["credit_balance"] is None
    done = market.reserved()
    assert predicted["diff"] == done["diff"]
    assert predicted["would"]["pay_ahead"] == done["reserved"]["paid"]
    assert done["instance"]["provider_id"] == str(instance)


def test_little_that_is_left_is_not_topped_up(market: ReservedMarket) -> None:
    result = market.reserved(months=1)
    market.sleep(29 * DAY_S)
    again = market.reserved(months=1)
    assert (again["changed"], again["reserved"]["months_left"]) == (False, pytest.approx(1 / 30, rel=1e-2))
    assert again["instance"]["provider_id"] == result["instance"]["provider_id"]


def test_nothing_is_rented_that_would_cost_more_than_the_cap(market: ReservedMarket) -> None:
    with pytest.raises(TenantFailure, match="above the reserve_cap of"):
        market.reserved(cap=1.0)
    assert not market.rows()


def test_a_box_that_is_there_is_not_paid_for_above_the_cap(market: ReservedMarket) -> None:
    instance = market.rented()
    with pytest.raises(TenantFailure, match="reserve_cap") as caught:
        market.reserved(cap=1.0)
    assert (caught.value.kind, caught.value.safe) == ("budget", "nothing was paid; the box runs on demand")
    assert market.row(instance)["credit_balance"] is None


def test_a_rental_that_ends_before_is_not_paid_for(market: ReservedMarket) -> None:
    instance = market.rented()
    body = {"instance": instance, "compute_per_hour": 60.0, "ends_in_s": 10 * DAY_S}
    assert market.request("POST", "/control/price_rise", body).status == 200
    with pytest.raises(TenantFailure, match="before the 1 that would be paid"):
        market.reserved()
    assert market.row(instance)["credit_balance"] is None


def test_a_bid_cannot_be_reserved(market: ReservedMarket) -> None:
    market.rented("interruptible")
    with pytest.raises(TenantFailure, match="only a box on demand can be reserved"):
        market.reserved()


def test_without_the_credit_nothing_is_paid(tmp_path: Path) -> None:
    market = ReservedMarket(tmp_path, credit=5.0)
    for _time in range(2):  # refused for certain, so that it may be sent again
        with pytest.raises(TenantFailure, match="the account has no"):
            market.reserved()
        assert box_record(market)["prepaying"] is None
    (row,) = market.rows().values()
    assert row["credit_balance"] is None


def box_record(market: ReservedMarket) -> dict[str, Any]:
    record = market.store.read_box("digits", "vast-a", 1)
    assert record is not None
    return record


@pytest.mark.parametrize("kind", ["lost_answer", "lost_request", "server_error"])
def test_a_lost_answer_is_looked_up_and_never_paid_twice(market: ReservedMarket, kind: str) -> None:
    instance = market.rented()
    market.lose_next_payment(kind)
    arrived = kind == "lost_answer"
    if arrived:
        assert market.reserved()["reserved"]["months"] == pytest.approx(1.0, rel=1e-2)
        assert not market.reserved()["changed"]
    else:
        begun = market.clock()
        with pytest.raises(TenantFailure, match="no deposit shows"):
            market.reserved()
        assert market.clock() - begun >= SETTLE_S, "it is looked for as long as a create"
        for check in (True, False):
            with pytest.raises(TenantFailure, match="nobody knows how that ended") as caught:
                market.reserved(check=check)
            assert "nothing more was sent" in caught.value.safe
    assert market.count(*PREPAY) == 1
    assert len(market.market.books.state.instances[instance].deposits) == arrived


def test_a_deposit_that_shows_late_is_taken_as_it_is(market: ReservedMarket, monkeypatch: pytest.MonkeyPatch) -> None:
    instance = market.rented()
    market.lose_next_payment("lost_answer")
    with monkeypatch.context() as late:
        late.setattr(reservation, "deposit_of", lambda _client, _box: Deposit(0.0, 0.0))
        late.setattr(desired, "deposit_of", lambda _client, _box: Deposit(0.0, 0.0))
        with pytest.raises(TenantFailure, match="no deposit shows"):
            market.reserved()
        with pytest.raises(TenantFailure, match="is not paid ahead by this call"):
            market.reserved()
    again = market.reserved()
    assert (again["changed"], again["reserved"]["months_left"]) == (False, pytest.approx(1.0, rel=1e-2))
    assert market.count(*PREPAY) == 1
    assert len(market.market.books.state.instances[instance].deposits) == 1
    record = box_record(market)
    assert (bool(record["prepaid_at"]), record["prepaying"]) == (True, None)


class Killed(BaseException):
    """What no code survives."""


@pytest.mark.parametrize("arrives", [True, False])
def test_a_process_that_is_killed_while_it_pays_leaves_no_second_payment(
    market: ReservedMarket, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    instance = market.rented()
    prepay = VastClient.prepay

    def killed(client: VastClient, box: str, amount: float) -> dict[str, Any]:
        if arrives:
            prepay(client, box, amount)
        raise Killed

    with monkeypatch.context() as once:
        once.setattr(VastClient, "prepay", killed)
        with pytest.raises(Killed):
            market.reserved()
    if arrives:
        assert not market.reserved()["changed"]
    else:
        with pytest.raises(TenantFailure, match="nobody knows how that ended"):
            market.reserved()
    assert market.count(*PREPAY) == arrives
    assert len(market.market.books.state.instances[instance].deposits) == arrives


def test_a_used_up_deposit_is_not_renewed_without_a_word(market: ReservedMarket) -> None:
    market.reserved(months=1)
    market.sleep(40 * DAY_S)
    again = market.reserved(months=1)
    assert again["changed"] is False
    assert again["reserved"] == {"refundable": 0.0, "months_left": 0.0, "used_up": True}
    assert "is used up: it bills its full price" in again["warnings"][0]
    assert market.count(*PREPAY) == 1


def test_a_process_that_waited_while_another_paid_does_not_pay(market: ReservedMarket) -> None:
    market.reserved()
    account = Account(market.client(), market.store)
    box = account.locate("digits", "vast-a").current
    assert box is not None
    with pytest.raises(TenantFailure, match="was paid ahead at"):
        account.prepay(box, 500.0)
    assert market.count(*PREPAY) == 1


def test_what_somebody_paid_in_the_console_is_not_renewed_either(market: ReservedMarket) -> None:
    instance = market.rented()
    market.prepay(instance, 5.0)
    assert not market.reserved()["changed"]
    market.sleep(40 * DAY_S)
    assert market.reserved()["reserved"]["used_up"]
    assert market.count(*PREPAY) == 0


def test_on_an_empty_disk_nobody_knows_what_was_paid(market: ReservedMarket, tmp_path: Path) -> None:
    market.rented()
    market.store = StateStore(str(tmp_path / "another"))
    with pytest.raises(TenantFailure, match="did not see it rented"):
        market.reserved()
    assert market.count(*PREPAY) == 0


def test_giving_it_back_says_what_comes_back(market: ReservedMarket) -> None:
    paid = market.reserved()["reserved"]["paid"]
    market.sleep(HOUR_S)
    (foreseen,) = market.converge("absent", check=True)["warnings"]
    assert "paid ahead for 1.00 months" in foreseen
    (told,) = market.converge("absent")["warnings"]
    assert f"of ${paid:.2f}"[:7] in told
    assert not market.rows()


def test_a_box_that_was_not_paid_ahead_goes_without_a_word(market: ReservedMarket) -> None:
    market.rented()
    assert "warnings" not in market.converge("absent")


def options(**changes: Any) -> dict[str, Any]:
    return {**{name: spec.get("default") for name, spec in SPEC.items()}, "project": "digits", "name": "vast-a",
            "state": "started", "market": "reserved", "price_cap": 1.0, **changes}  # fmt: skip


def test_the_options_mean_on_demand_and_a_payment() -> None:
    desire = desire_of(options(reserve_months=3.0, reserve_cap=700.0))
    assert (desire.order.wanted.market, desire.reserve) == (ON_DEMAND.market, Reserve(3.0, 700.0))
    assert desire_of(options(state="stopped")).reserve is None


@pytest.mark.parametrize(
    "given",
    [{}, {"reserve_months": 3.0}, {"reserve_cap": 3.0}, {"reserve_months": 0.0, "reserve_cap": 1.0},
     {"reserve_months": 99.0, "reserve_cap": 1.0}, {"reserve_months": 1.0, "reserve_cap": float("inf")},
     {"reserve_months": float("nan"), "reserve_cap": 1.0}],
)  # fmt: skip
def test_what_is_no_reservation_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(TenantFailure, match="reserve_"):
        desire_of(options(**given))
