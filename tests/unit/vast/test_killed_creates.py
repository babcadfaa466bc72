# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Who starts again after a kill in the create, or looks beside another process, does not rent a second box."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import rental_account
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.creation import SETTLE_S, Creation
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.lease import CLOCK_TOLERANCE_S
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import Box
from ansible_collections.tenant.gpu.plugins.module_utils.vast.actions import Account
from faulty_market import FaultyMarket
from late_create import keep_time, kill_in_the_create

ASKS = "/asks/"
# A create may arrive for as long as its request may take, and show up in a list for as long as a lost answer's.
TIMEOUT_S = 30.0
ALL_S = TIMEOUT_S + SETTLE_S


@pytest.fixture
def market(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FaultyMarket:
    made = FaultyMarket(tmp_path / "market", machines=16, forgetful=True)
    keep_time(made, monkeypatch)
    return made


def killed(market: FaultyMarket, late_s: float | None = None) -> None:
    kill_in_the_create(market, ASKS, lambda: market.converge("present", offers=1), late_s)
    record = market.store.read_box("digits", "vast-a", 1)
    assert record is not None
    assert (record["provider_id"], bool(record["sent_at"])) == ("", True)


def seconds_to_present(market: FaultyMarket, **order: Any) -> float:
    before = market.clock()
    market.converge("present", **order)
    return market.clock() - before


# -- a create whose sender was killed ------------------------------------------------------------------------------


@pytest.mark.parametrize("late_s", [1.0, SETTLE_S + 1.0, TIMEOUT_S])
def test_a_create_that_arrives_after_its_sender_was_killed_is_the_only_one(market: FaultyMarket, late_s: float) -> None:
    killed(market, late_s)
    # Offers vanish and change their order: that the same one is refused twice is no guard.
    market.converge("present", offers=6)
    assert len(market.rows()) == 1
    assert market.count("PUT", "asks") == 1
    found = market.converge("present")
    assert (found["generation"], found["changed"], found["superseded"]) == (1, False, [])
    (row,) = market.rows().values()
    assert market.store.read_box("digits", "vast-a", 1)["provider_id"] == str(row["id"])  # type: ignore[index]


def test_what_a_killed_sender_rented_costs_from_when_it_ran(market: FaultyMarket) -> None:
    killed(market, 1.0)
    market.converge("present")
    lines = rental_account.Journal(market.store).lines()
    assert [line["verb"] for line in lines if line.get(rental_account.FOUND)] == ["seen-started"]


def test_what_a_killed_sender_rented_is_given_back_above_the_cap(
    market: FaultyMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As any new box that is dearer than its offer; and the offer of who finds it is tried all the same."""
    killed(market, 20.0)
    dearer, shown = ["31000001"], Account.to_box

    def to_box(self: Any, row: Any) -> Box:
        box = shown(self, row)
        return replace(box, dph_total=99.0) if box.provider_id in dearer else box

    monkeypatch.setattr(Account, "to_box", to_box)
    made = market.converge("started", offers=1)
    assert [(gone["provider_id"], gone["generation"]) for gone in made["rejected"]] == [("31000001", 1)]
    assert "above the price_cap" in made["rejected"][0]["reason"]
    assert (made["generation"], made["offer"]["id"]) == (2, market.store.read_box("digits", "vast-a", 2)["offer_id"])  # type: ignore[index]
    assert [str(row["id"]) for row in market.rows().values()] == [made["instance"]["provider_id"]]


def test_a_create_that_never_arrived_is_waited_for_once(market: FaultyMarket) -> None:
    killed(market)
    assert seconds_to_present(market) >= ALL_S - 2  # times are told in whole seconds
    assert len(market.rows()) == 1
    assert market.converge("present")["generation"] == 2
    record = market.store.read_box("digits", "vast-a", 1)
    assert record is not None
    assert record["settled_at"]


def test_one_that_was_settled_is_not_waited_for_again(market: FaultyMarket) -> None:
    killed(market)
    market.inject("lost_request", "create", times=None)
    with pytest.raises(TenantFailure, match="no offer led to a running box"):
        market.converge("present", offers=1)
    market.clear()
    assert seconds_to_present(market) < SETTLE_S
    assert len(market.rows()) == 1


def test_one_that_was_sent_long_ago_is_not_waited_for(market: FaultyMarket) -> None:
    killed(market)
    market.store.update_box("digits", "vast-a", 1, sent_at="2020-01-01T00:00:00Z")
    assert seconds_to_present(market) < SETTLE_S
    assert len(market.rows()) == 1


@pytest.mark.parametrize(
    "sent_at", ["2099-01-01T00:00:00Z", None, "yesterday"], ids=["set-back", "older", "unreadable"]
)
def test_a_clock_that_was_set_back_neither_waits_for_ever_nor_skips(market: FaultyMarket, sent_at: str | None) -> None:
    killed(market)
    market.store.update_box("digits", "vast-a", 1, sent_at=sent_at)
    took_s = seconds_to_present(market)
    assert ALL_S <= took_s < 3 * ALL_S
    assert len(market.rows()) == 1


def test_a_look_that_fails_leaves_the_create_unsettled(market: FaultyMarket) -> None:
    killed(market, ALL_S - 5.0)
    # Two lists before the lock and two under it are good.
    market.inject("server_error", "list", status=503, after=4, times=None)
    with pytest.raises(TenantFailure, match="got no certain answer") as caught:
        market.converge("present")
    assert "nothing more was rented" in caught.value.safe
    market.clear()
    market.converge("present")
    assert len(market.rows()) == 1
    assert market.count("PUT", "asks") == 1


def test_a_replacement_whose_sender_was_killed_is_found_beside_what_it_replaces(market: FaultyMarket) -> None:
    old = market.converge("started")["instance"]["provider_id"]
    kill_in_the_create(market, ASKS, lambda: market.converge("started", replaces=old), 20.0)
    new = market.converge("started", offers=6, replaces=old)
    assert new["generation"] == 2
    assert len(market.rows()) == 2
    assert market.count("PUT", "asks") == 2


def test_a_create_of_a_controller_whose_clock_is_behind_may_surface_still(market: FaultyMarket) -> None:
    """By ours it was sent so long ago that it would have surfaced; leases allow its clock to be that far off."""
    killed(market, 30.0)
    sent = records.parse_utc(market.store.read_box("digits", "vast-a", 1)["sent_at"])  # type: ignore[index]
    behind = sent - datetime.timedelta(seconds=CLOCK_TOLERANCE_S)
    market.store.update_box("digits", "vast-a", 1, sent_at=records.utc_text(behind))
    market.sleep(ALL_S - CLOCK_TOLERANCE_S)
    market.converge("present", offers=6)
    market.sleep(ALL_S)
    assert (len(market.rows()), market.count("PUT", "asks")) == (1, 1)


def test_a_create_may_surface_from_when_it_is_sent_on(market: FaultyMarket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its intent may be on disk long before: the journal is locked while another process writes."""
    intend, told = Creation.intend, []

    def long_before(self: Any, **known: Any) -> None:
        intend(self, **known)
        self.note(sent_at="2020-01-01T00:00:00Z")

    def sends(request: Any, timeout: float) -> Any:
        if request.get_method() == "PUT" and not told:
            told.append((market.store.read_box("digits", "vast-a", 1) or {})["sent_at"])
        return opened(request, timeout)

    opened = market.open
    monkeypatch.setattr(Creation, "intend", long_before)
    market.open = sends  # type: ignore[method-assign, assignment]
    market.converge("present")
    assert told
    assert told[0] > "2020-01-01T00:00:00Z"


def test_a_create_that_is_sent_after_a_wait_may_surface_from_then_on(market: FaultyMarket) -> None:
    market.inject("rate_limited", "create", retry_after_s=30)
    sleeping, told = market.sleep, []

    def waits(seconds: float) -> None:
        if seconds == 30:
            market.store.update_box("digits", "vast-a", 1, sent_at="2020-01-01T00:00:00Z")
        sleeping(seconds)

    def sends(request: Any, timeout: float) -> Any:
        if request.get_method() == "PUT":
            told.append(market.store.read_box("digits", "vast-a", 1)["sent_at"])  # type: ignore[index]
        return opened(request, timeout)

    opened = market.open
    market.sleep, market.open = waits, sends  # type: ignore[method-assign, assignment]
    market.converge("present")
    assert len(told) == 2
    assert "2020-01-01T00:00:00Z" not in told


# -- another process, and one bad list under the lock --------------------------------------------------------------


@contextlib.contextmanager
def another_rents_first(market: FaultyMarket, monkeypatch: pytest.MonkeyPatch, bad_lists: int) -> Iterator[list[str]]:
    """Whoever comes to the account's lock finds that another process just rented, and gets so many empty lists."""
    rented: list[str] = []
    lock = rental_account.RentalAccount.lock

    @contextlib.contextmanager
    def after_the_other(account: Any) -> Iterator[None]:
        if not rented:
            rented.append("")
            rented[0] = str(market.converge("present", offers=1)["instance"]["provider_id"])
            if bad_lists:
                market.inject("empty_list", "list", times=bad_lists)
        with lock(account):
            yield

    with monkeypatch.context() as patched:
        patched.setattr(rental_account.RentalAccount, "lock", after_the_other)
        yield rented


def test_what_another_process_rented_is_not_ours_to_give_back(
    market: FaultyMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Account.to_box
    with another_rents_first(market, monkeypatch, 0) as rented:

        def to_box(self: Any, row: Any) -> Box:
            box = shown(self, row)
            return replace(box, dph_total=99.0) if rented and rented[0] else box

        monkeypatch.setattr(Account, "to_box", to_box)
        with pytest.raises(TenantFailure, match="above the price_cap of") as caught:
            market.converge("present", offers=6)
    assert (caught.value.kind, caught.value.safe) == ("budget", "it was left as it is")
    assert [str(row["id"]) for row in market.rows().values()] == rented


def test_one_empty_list_under_the_lock_is_not_believed(market: FaultyMarket, monkeypatch: pytest.MonkeyPatch) -> None:
    with another_rents_first(market, monkeypatch, 1) as rented:
        seen = market.converge("present", offers=6)
    assert seen["instance"]["provider_id"] == rented[0]
    assert len(market.rows()) == 1
    assert market.count("PUT", "asks") == 1


def test_empty_lists_under_the_lock_are_held_against_known_ids(
    market: FaultyMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        another_rents_first(market, monkeypatch, 2),
        pytest.raises(TenantFailure, match="which the provider still has") as caught,
    ):
        market.converge("present", offers=6)
    assert "nothing was rented" in caught.value.safe
    assert len(market.rows()) == 1


def test_one_empty_list_after_the_rate_limiter_is_not_believed(market: FaultyMarket) -> None:
    market.inject("rate_limited", "create", retry_after_s=30)
    waiting = market.sleep

    def beside(seconds: float) -> None:
        if seconds == 30:
            body = {"image": "debian:12", "disk": 20, "label": "gt1/digits/vast-a/g1/0123456789abcdef"}
            assert market.request("PUT", f"/api/v0/asks/{market.offers()[-1]}/", body).status == 200
            market.inject("empty_list", "list")
        waiting(seconds)

    market.sleep = beside  # type: ignore[method-assign]
    with pytest.raises(TenantFailure, match="of this name came up while"):
        market.converge("present")
    assert len(market.rows()) == 1


def test_a_box_that_is_replaced_and_one_that_was_given_back_are_accounted_for(market: FaultyMarket) -> None:
    old = market.converge("started")["instance"]["provider_id"]
    # The list before the lock shows it; those under the lock, for the first offer, do not.
    market.inject("empty_list", "list", after=1, times=2)
    market.inject("stuck_loading", "create")
    new = market.converge("started", replaces=old)
    assert (new["generation"], len(new["rejected"])) == (3, 1)
    assert len(market.rows()) == 2
