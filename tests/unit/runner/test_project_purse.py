# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The budget of a whole project beside that of each run: one way of counting, the same rungs, and who keeps to them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import spent
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.purse import UNLIMITED, Purse
from ansible_collections.tenant.gpu.plugins.module_utils.spent import Limit
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore

from gpu_tenant import decide, fleet, money_ladder, recoveries, report_story, spending, status_view, verdicts
from gpu_tenant.decide import Money, Situation
from gpu_tenant.hosts import BoxHost
from gpu_tenant.money_ladder import NO_NEW_BOXES, NONE, SPENT, WARNING
from gpu_tenant.verdicts import Verdict

NOW = "2026-11-21T10:00:00Z"
BOX = BoxIdentity("p", "b", 1, "42")
RICH = Purse(0.0, 100.0, 0.5)


def at(hour: float) -> str:
    return f"2026-11-21T{int(hour):02d}:{round(hour % 1 * 60):02d}:00Z"


def effect(hour: float, verb: str, box: str = "b", provider_id: str = "7", **more: Any) -> dict[str, Any]:
    return {
        "kind": "effect",
        "verb": verb,
        "at": at(hour),
        "project": "p",
        "box": box,
        "provider_id": provider_id,
        **more,
    }


def rented(hour: float, box: str = "b", provider_id: str = "7", **more: Any) -> dict[str, Any]:
    return effect(hour, "rent", box, provider_id, price_per_hour=1.0, stopped_per_hour=0.1, **more)


# --- what counts ----------------------------------------------------------------------------------------------------


def test_a_project_pays_for_every_box_and_a_run_for_its_own() -> None:
    lines = [
        rented(4, run_id="r"),
        effect(6, "stop"),
        rented(5, "c", "8", run_id="s"),
        effect(7, "destroy", "c", "8"),
        rented(9, "d", "9"),
        {**rented(1, "e", "10"), "project": "q"},
    ]
    assert spent.of_project(lines, "p", NOW) == pytest.approx((2.0 + 0.4) + 2.0 + 1.0)
    assert spent.of_run(lines, "p", "r", NOW) == pytest.approx(2.4)
    assert spent.of_run(lines, "p", "s", NOW) == pytest.approx(2.0)
    assert spent.of_run(lines, "p", "nobody's", NOW) == 0.0
    assert spent.of_project([*lines, effect(9, "rent", "f", "11")], "p", NOW) is None
    assert spent.of_project([*lines, effect(9, "rent", "f", "11")], "p", NOW, 3.0) == pytest.approx(5.4 + 3.0)


@pytest.mark.parametrize(
    "begun",
    [
        {**effect(8, recoveries.RECOVER, provider_id="", rung="rent", run_id="r"), "kind": "intent"},
        effect(8, spent.SERVES, run_id="r"),
    ],
)
def test_a_box_that_was_there_costs_a_run_from_the_moment_when_it_serves_it(begun: dict[str, Any]) -> None:
    lines = [rented(1), begun]
    assert spent.of_run(lines, "p", "r", NOW) == pytest.approx(2.0)
    assert spent.is_served(lines, "p", "r", "b")
    assert not spent.is_served(lines, "p", "r", "c")
    assert not spent.is_served(lines, "p", "s", "b")
    assert spent.of_run([*lines, effect(9, spent.SERVES, run_id="r")], "p", "r", NOW) == pytest.approx(2.0)
    assert spent.of_run([rented(1), {**begun, "kind": "failed"}], "p", "r", NOW) == 0.0


@pytest.mark.parametrize(
    ("lines", "box", "held"),
    [
        ([rented(9.5)], "c", 0.5),
        ([rented(9.5)], "b", 0.0),
        ([rented(9)], "c", 0.0),
        ([rented(3)], "c", 0.0),
        ([rented(9.5), effect(9.75, "stop")], "c", 0.0),
        ([rented(9.5), effect(9.75, "destroy")], "c", 0.0),
        ([rented(9.5), rented(9.75, "d", "8")], "c", 0.5 + 0.75),
        ([effect(9.5, "rent")], "c", 1.0),
    ],
    ids=[
        "half an hour ago",
        "its own",
        "an hour ago",
        "long ago",
        "rests",
        "gone",
        "two",
        "at an unknown rate: the cap",
    ],
)
def test_what_was_rented_a_moment_ago_holds_the_rest_of_its_hour(
    lines: list[dict[str, Any]], box: str, held: float
) -> None:
    """Else of two processes that rent at the same time each would see the whole budget."""
    purse = spent.purse(lines, Limit("p", 9.0), box, 2.0, NOW)
    assert purse.held == pytest.approx(held)
    assert (purse.budget, purse.reserve) == (9.0, 2.0)


@pytest.mark.parametrize(
    ("purse", "room"),
    [
        (Purse(0.0, None, 9.0), True),
        (Purse(None, None), True),
        (Purse(None, 5.0), False),
        (Purse(4.0, 5.0, 1.0), True),
        (Purse(4.1, 5.0, 1.0), False),
        (Purse(3.0, 5.0, 1.0, held=1.0), True),
        (Purse(3.0, 5.0, 1.0, held=1.1), False),
        (Purse(5.0, 5.0), True),
    ],
)
def test_room(purse: Purse, room: bool) -> None:
    assert purse.has_room is room


# --- what is decided by it ------------------------------------------------------------------------------------------

PURSES = [
    (RICH, NONE),
    (Purse(85.0, 100.0, 0.5), WARNING),
    (Purse(60.0, 100.0, 0.5, warn_at=0.5), WARNING),
    (Purse(99.8, 100.0, 0.5), NO_NEW_BOXES),
    (Purse(90.0, 100.0, 0.5, held=9.9), NO_NEW_BOXES),
    (Purse(100.0, 100.0, 0.5), SPENT),
]


@pytest.mark.parametrize("is_project", [True, False])
@pytest.mark.parametrize(("purse", "rung"), PURSES)
def test_both_budgets_lead_to_the_same_acts(purse: Purse, rung: str, is_project: bool) -> None:
    """Whichever of them is on a rung; and what is said names the one that is."""
    money = (
        Money(project=purse)
        if is_project
        else Money(purse.spent, purse.budget, purse.reserve, purse.warn_at, purse.held)
    )
    assert money_ladder.reached(purse) == rung
    absent = decide.decide(Situation(Verdict(verdicts.NOT_RENTED, "not there"), money=money))
    at_work = decide.decide(Situation(Verdict(verdicts.RUNNING, "at work"), money=money))
    lost = decide.decide(Situation(Verdict(verdicts.GONE, "it is gone"), money=money, replaceable=True))
    assert (absent.kind == decide.RENT) is (lost.kind == decide.NEXT_OFFER) is (rung in (NONE, WARNING))
    assert (at_work.kind == decide.PARK) is (rung == SPENT)
    assert money.is_near is (rung != NONE)
    for action in (absent, at_work, lost):
        assert (action.failure == "budget") is (action.kind in (decide.PARK, decide.GIVE_UP))
        assert ("budget of its project" in action.why) is (is_project and bool(action.failure)), action.why


def test_a_box_that_cannot_rest_is_told_of_and_not_parked_when_the_project_s_money_is_gone() -> None:
    money = Money(0.0, 9.0, project=Purse(9.0, 9.0))
    now = Situation(Verdict(verdicts.RUNNING, "at work"), money=money, bills_on=True)
    assert decide.decide(now).kind == decide.BILLS_ON
    assert decide.decide(replace(now, pull_due=True)).kind == decide.PULL


# --- told once ------------------------------------------------------------------------------------------------------


def crossings(store: StateStore, moneys: list[tuple[str, Money]]) -> list[str]:
    """What is told as runs of one project are looked at in turn, each by a reader who only has the journal."""
    found = []
    for run_id, money in moneys:
        journal = Journal(store)
        while (crossed := money_ladder.crossing(journal.lines(), "p", run_id, money)) is not None:
            found.append(crossed.text(run_id).split(",")[0].split(":")[0])
            money_ladder.note(journal, BOX, run_id, crossed)
    return found


def test_each_rung_of_the_project_is_told_once_whichever_run_is_looked_at(tmp_path: Path) -> None:
    near, full, end = (Money(project=Purse(dollars, 10.0, 0.5)) for dollars in (8.0, 9.8, 10.0))
    store = StateStore(str(tmp_path))
    assert crossings(store, [("r", near), ("s", near), ("r", near)]) == [
        "project p has spent $8.00 of its budget of $10.00"
    ]
    assert crossings(store, [("s", full), ("r", full), ("s", end), ("r", end)]) == [
        "project p has spent $9.80 of its budget of $10.00",
        "project p has spent $10.00 of its budget of $10.00",
    ]
    raised = Money(project=Purse(10.0, 20.0, 0.5))
    assert crossings(store, [("r", raised), ("s", raised)]) == ["project p has spent $10.00 of its budget of $20.00"]


def test_boxes_with_caps_of_their_own_do_not_tell_a_rung_to_and_fro(tmp_path: Path) -> None:
    cheap, dear = (Money(project=Purse(8.5, 10.0, reserve)) for reserve in (0.5, 5.0))
    store = StateStore(str(tmp_path))
    assert len(crossings(store, [("r", cheap), ("s", dear), ("r", cheap), ("s", dear), ("r", cheap)])) == 2


def test_a_run_and_its_project_are_told_of_each_by_its_own_name(tmp_path: Path) -> None:
    both = Money(4.0, 5.0, 0.5, project=Purse(8.0, 10.0, 0.5))
    store = StateStore(str(tmp_path))
    assert crossings(store, [("r", both), ("r", both)]) == [
        "run r has spent $4.00 of its budget of $5.00",
        "project p has spent $8.00 of its budget of $10.00",
    ]
    lines: list[dict[str, Any]] = Journal(store).lines()
    assert [(line["verb"], line.get("run_id")) for line in lines] == [("budget", "r"), ("project-budget", None)]
    events = report_story.events(lines, [], [], ["b"])
    assert [(event["kind"], event["run"]) for event in events] == [("budget", "r"), ("budget", "")]
    assert events[1]["text"].startswith("project p has spent $8.00")
    assert "its runs are parked" in events[1]["text"]


# --- from the inventory ---------------------------------------------------------------------------------------------


def host(store: StateStore, **variables: Any) -> BoxHost:
    known = {"tenant_project": "p", "tenant_state_dir": store.root, "provision_price_cap": 1.0}
    return BoxHost("b", {**known, **variables})


def test_what_the_inventory_declares_is_what_the_decision_goes_by(tmp_path: Path) -> None:
    store = StateStore(str(tmp_path))
    lines = [rented(4), rented(9, "c", "8", run_id="r")]
    money = spending.of_run(host(store, tenant_budget_usd="8"), {"id": "r", "budget": {"usd": 3}}, lines, NOW)
    assert (money.spent, money.project.spent, money.project.budget) == (pytest.approx(1.0), pytest.approx(7.0), 8.0)
    assert money.project.reserve == 1.0
    assert money_ladder.reached(money.project) == WARNING
    late = spending.of_project(host(store, tenant_budget_usd=8, tenant_budget_warn_at=0.9), lines, NOW)
    assert money_ladder.reached(late) == NONE
    assert spending.of_project(host(store), lines, NOW) == UNLIMITED, "where none is declared nobody counts"


@pytest.mark.parametrize("name", ["tenant_budget_usd", "tenant_budget_warn_at"])
@pytest.mark.parametrize("told", ["a lot", "0", "-1", "nan", "inf", "$5"])
def test_what_is_no_budget_is_named(tmp_path: Path, name: str, told: str) -> None:
    declared = {"tenant_budget_usd": 5, name: told}
    with pytest.raises(TenantFailure, match=name) as caught:
        spending.project_limit(host(StateStore(str(tmp_path)), **declared))
    assert (caught.value.kind, caught.value.box) == ("config", "b")


@pytest.mark.parametrize(
    ("usd", "says"),
    [
        ("", ""),
        ("100", ""),
        ("7", "project p has spent $6.00 of its budget of $7.00: soon"),
        ("6.5", "project p has spent $6.00 of its budget of $6.50: no other box"),
        ("6", "project p has spent $6.00 of its budget of $6.00: its runs are parked"),
        ("all", "tenant_budget_usd is 'all'"),
    ],
)
def test_status_says_how_far_the_project_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usd: str, says: str
) -> None:
    """Whoever rented, and whether or not a watch runs."""
    store = StateStore(str(tmp_path))
    Journal(store).append("effect", "rent", **BOX.as_dict(), price_per_hour=1.0)
    (line,) = Journal(store).lines()
    monkeypatch.setattr(fleet.records, "utc_now", lambda: hours_after(line["at"], 6))
    told = fleet.read([host(store, tenant_budget_usd=usd)], "p")[store.root].project_budgets.get("b", "")
    assert told.startswith(says)
    assert bool(told) is bool(says)


def test_status_says_it_once_below_all_boxes() -> None:
    told = "project p has spent $6.00 of its budget of $7.00: soon"
    rows = [{"box": name, "countdowns": [], "project_budget": told} for name in ("b1", "b2")]
    assert [str(text) for text in status_view.alarms(rows, [])] == [told]
    assert list(status_view.alarms([{**rows[0], "project_budget": None}], [])) == []


def hours_after(moment: str, hours: int) -> str:
    from datetime import timedelta

    from ansible_collections.tenant.gpu.plugins.module_utils.box import records

    return str(records.utc_text(records.parse_utc(moment) + timedelta(hours=hours)))


def test_nobody_knows_what_a_project_spent_whose_rates_are_unknown(tmp_path: Path) -> None:
    store = StateStore(str(tmp_path))
    Journal(store).append("effect", "rent", **BOX.as_dict())
    free = {"tenant_budget_usd": 5, "provision_price_cap": 0}
    told = fleet.read([host(store, **free)], "p")[store.root].project_budgets["b"]
    assert "has spent nobody knows what of its budget of $5.00" in told
