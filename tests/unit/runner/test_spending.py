# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a run cost by the journal, and what was tried for it: from lines, without a clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import accrual, spent
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore

from gpu_tenant import recoveries, recovering, spending
from gpu_tenant.decide import NEXT_OFFER, RAISE_BID, RESTART, Action, Costs, Money, Tried
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation

BOX = {"project": "p", "box": "b"}


def at(hour: int) -> str:
    return f"2026-11-21T{hour:02d}:00:00Z"


def line(hour: int, verb: str, provider_id: str = "7", kind: str = "effect", **more: Any) -> dict[str, Any]:
    return {**BOX, "at": at(hour), "verb": verb, "kind": kind, "provider_id": provider_id, **more}


def begun(hour: int, rung: str = "rent", **more: Any) -> dict[str, Any]:
    return line(hour, recoveries.RECOVER, "", "intent", run_id="r", rung=rung, **more)


def cost_of(*lines: dict[str, Any]) -> float | None:
    return spent.of_run(lines, "p", "r", at(10))


def test_compute_costs_while_it_runs_and_the_disk_while_it_rests() -> None:
    rent = line(1, "rent", price_per_hour=0.5, stopped_per_hour=0.1)
    assert cost_of() == 0.0
    assert cost_of(begun(1), rent) == pytest.approx(4.5)
    assert cost_of(begun(1), rent, line(3, "stop")) == pytest.approx(1.0 + 0.7)
    assert cost_of(begun(1), rent, line(3, "stop"), line(8, "start")) == pytest.approx(2.0 + 0.5)
    assert cost_of(begun(1), rent, line(3, "stop"), line(8, "start", bid=0.8)) == pytest.approx(1.0 + 0.5 + 1.8)
    assert cost_of(begun(1), rent, line(2, "start"), line(3, "destroy")) == pytest.approx(1.0)


def test_what_the_box_cost_before_the_run_is_not_its_cost() -> None:
    rent = line(1, "rent", price_per_hour=0.5)
    assert cost_of(rent, begun(9)) == pytest.approx(0.5)
    ended = [line(1, "rent", "6"), line(2, "destroy", "6")]
    assert cost_of(*ended, rent, begun(9)) == pytest.approx(0.5), "nor is one whose price is not known"
    assert cost_of(rent, {**begun(8), "at": "noon"}, begun(9)) == pytest.approx(0.5)


def test_a_machine_that_was_found_after_the_loss_of_the_store_counts_from_when_it_ran() -> None:
    found = line(4, "seen-started", found=True, effective_at=at(2), generation=1, price_per_hour=0.5)

    def of_run(*lines: dict[str, Any], box: str = "b") -> float | None:
        return spent.of_run(lines, "p", "r", at(10), box=box)

    assert of_run(found) == pytest.approx(4.0)
    assert of_run(found, begun(9)) == pytest.approx(4.0), "it was on the run before it was brought up anew"
    assert of_run(begun(3), found) == pytest.approx(3.5), "a create whose answer was lost"
    assert of_run(found, box="another") == 0.0
    assert of_run({**found, "generation": 2}) is None, "what the first one cost is not known"
    first = line(1, "rent", "6", generation=1, price_per_hour=0.5)
    assert of_run(first, line(2, "destroy", "6", generation=1), {**found, "generation": 2}) == pytest.approx(4.0)


def test_two_machines_add_up_and_an_unknown_price_is_unknown() -> None:
    first = [begun(1), line(1, "rent", price_per_hour=0.5, stopped_per_hour=0.1), line(3, "stop")]
    assert cost_of(*first, line(8, "rent", "8", price_per_hour=1.0)) == pytest.approx(1.0 + 0.7 + 2.0)
    assert cost_of(*first, line(8, "rent", "8")) is None
    unknown = [*first, line(8, "rent", "8")]
    assert spent.of_run(unknown, "p", "r", at(10), unknown_per_hour=3.0) == pytest.approx(1.0 + 0.7 + 6.0)


def test_a_price_that_is_told_once_the_box_runs_held_from_the_rental_on() -> None:
    told = line(2, "priced", price_per_hour=0.5, stopped_per_hour=0.1)
    assert cost_of(begun(1), line(1, "rent"), told) == pytest.approx(4.5)
    assert cost_of(begun(1), line(1, "rent"), told, line(3, "stop")) == pytest.approx(1.0 + 0.7)


def test_every_box_that_the_run_was_on_is_paid_from_its_one_budget() -> None:
    """A hand-over to the next candidate begins no new budget."""
    first = [begun(1), line(1, "rent", price_per_hour=0.5), line(3, "destroy")]
    second = [
        {**begun(3), "box": "c"},
        {**line(3, "rent", "8", price_per_hour=1.0), "box": "c"},
        {**line(5, "destroy", "8"), "box": "c"},
    ]
    others = [{**line(1, "rent", "9", price_per_hour=9.0), "project": "q"}, {**begun(1), "project": "q"}]
    assert cost_of(*first, *second, *others) == pytest.approx(1.0 + 2.0)


def test_a_journal_of_other_boxes_says_nothing() -> None:
    assert cost_of(begun(1), {**line(1, "rent", price_per_hour=9.0), "box": "other"}) == 0.0


def test_no_budget_has_room_and_an_unknown_cost_has_none() -> None:
    assert spending.budget_usd({"budget": {}}) is None
    assert spending.budget_usd({"budget": {"usd": None}}) is None
    assert spending.budget_usd({"budget": {"usd": 2}}) == 2.0
    assert Money(None, None).has_room
    assert not Money(None, 1.0).has_room
    assert Money(0.5, 1.0, 0.5).has_room
    assert not Money(0.6, 1.0, 0.5).has_room


@pytest.mark.parametrize(
    ("provider", "rung", "noted"),
    [("absent", NEXT_OFFER, ["7"]), ("absent", "rent", []), ("outbid", NEXT_OFFER, [])],
)
def test_a_machine_that_is_gone_costs_nothing_from_the_recovery_on(
    tmp_path: Path, provider: str, rung: str, noted: list[str]
) -> None:
    store = StateStore(str(tmp_path))
    store.update_box("p", "b", 1, provider_id="6", destroyed_at=at(1))
    store.update_box("p", "b", 2, provider_id="7")
    seen = Observation("b", at(9), provider, denied=BoxIdentity("p", "b", 2, "7") if provider == "absent" else None)
    recovering.begin(Action(rung, "it is gone"), seen, store, "p", "r")
    lines = Journal(store).lines()
    assert [one["provider_id"] for one in lines if one["verb"] == accrual.SEEN_GONE] == noted
    assert lines[-1]["verb"] == recoveries.RECOVER


def rung_costs(*lines: dict[str, Any], cap: float | None = None) -> Costs:
    return spending.rung_costs(lines, "p", "b", at(10), cap)


def test_a_rung_costs_what_goes_by_until_the_next_act() -> None:
    rent = line(1, "rent", price_per_hour=1.0, stopped_per_hour=0.1)
    assert rung_costs(begun(1), rent) == Costs(), "the first rental is no rung"
    assert rung_costs(begun(1), rent, begun(6, RESTART)).restart == pytest.approx(4.0)
    assert rung_costs(begun(1), rent, begun(6, RESTART), begun(7, RESTART)).restart == pytest.approx(4.0)
    moved = rung_costs(begun(1), rent, begun(6, RAISE_BID), begun(8, NEXT_OFFER))
    assert (moved.raise_bid, moved.next_offer) == (pytest.approx(2.0), pytest.approx(2.0))
    ended = rung_costs(begun(1), rent, begun(5, RESTART), begun(7, "start"))
    assert ended.restart == pytest.approx(2.0), "what comes after another act is not its cost"


def test_machines_of_a_box_that_rest_or_end_cost_a_rung_what_they_bill() -> None:
    old = [begun(1), line(1, "rent", price_per_hour=1.0, stopped_per_hour=0.1)]
    replaced = [
        begun(6, NEXT_OFFER),
        line(6, "stop"),
        line(7, "rent", "8", price_per_hour=2.0),
        line(9, "destroy", "8"),
    ]
    assert rung_costs(*old, *replaced).next_offer == pytest.approx(4 * 0.1 + 2 * 2.0)
    others = {**line(6, "rent", "9", price_per_hour=9.0), "box": "c"}
    assert rung_costs(*old, *replaced, others).next_offer == pytest.approx(4 * 0.1 + 2 * 2.0)


def test_a_rung_costs_nothing_once_the_run_trains_and_an_unknown_rate_is_unknown() -> None:
    rent, unknown = line(1, "rent", price_per_hour=1.0), line(1, "rent")
    trained = [begun(6, RESTART), line(7, recoveries.RECOVERED)]
    assert rung_costs(begun(1), rent, *trained) == Costs()
    assert rung_costs(begun(1), rent, *trained, begun(9, RESTART)).restart == pytest.approx(1.0)
    assert rung_costs(begun(1), unknown, begun(9, RESTART)).restart is None
    assert rung_costs(begun(1), unknown, begun(9, RESTART), cap=0.5).restart == pytest.approx(0.5)
    assert rung_costs(begun(1), rent, {**begun(9, RESTART), "at": "noon"}).restart is None


@pytest.mark.parametrize(
    ("budget", "usd"),
    [
        ({}, None),
        ({"usd": None}, None),
        ({"usd": 4.0}, 1.0),
        ({"usd": 4.0, "rung_usd": 0.5}, 0.5),
        ({"rung_usd": 2}, 2.0),
    ],
)
def test_a_rung_may_cost_a_share_of_the_budget_or_what_the_spec_says(budget: dict[str, Any], usd: float | None) -> None:
    host = BoxHost("b", {"tenant_project": "p", "provision_price_cap": "0.5"})
    lines = [begun(1), line(1, "rent", price_per_hour=1.0), begun(9, RESTART)]
    money = spending.of_run(host, {"id": "r", "budget": budget}, lines, at(10))
    assert money.per_rung == usd
    assert money.rungs.restart == pytest.approx(1.0)
    assert money.bears(RESTART) is (usd is None or usd > 1.0)
    assert money.bears(NEXT_OFFER)


def test_tries_count_until_the_run_trains_again_and_for_six_hours() -> None:
    raised, moved = begun(9, RAISE_BID), begun(9, NEXT_OFFER)
    assert recoveries.tried([raised, moved, raised], "p", "b", at(10)) == Tried(raise_bid=2, next_offer=1)
    assert recoveries.tried([raised, line(9, recoveries.RECOVERED), moved], "p", "b", at(10)) == Tried(next_offer=1)
    assert recoveries.tried([begun(3, RAISE_BID)], "p", "b", at(10)) == Tried()
    assert recoveries.tried([raised], "p", "other", at(10)) == Tried()


def test_a_machine_that_a_box_was_lost_on_is_left_out_for_a_day() -> None:
    lines = [
        begun(9, NEXT_OFFER, machine_id=12),
        begun(9, RAISE_BID, machine_id=13),
        begun(9, NEXT_OFFER, machine_id=None),
    ]
    assert recoveries.bad_machines(lines, at(10)) == [12]
    assert recoveries.bad_machines(lines, "2026-11-22T09:30:00Z") == []
