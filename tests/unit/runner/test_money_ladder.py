# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How far a run is through its budget: the table of rungs, what is told of them and that it is told once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.purse import DEFAULT_WARN_AT
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from hypothesis import given
from hypothesis import strategies as st

from gpu_tenant import fleet, metrics, money_ladder, report_story, spending, verdicts
from gpu_tenant.decide import PARK, RENT, RENTING, Money, Situation, decide
from gpu_tenant.hosts import BoxHost
from gpu_tenant.money_ladder import NO_NEW_BOXES, NONE, SPENT, WARNING, Crossing, crossing, rung
from gpu_tenant.verdicts import Verdict

BOX = BoxIdentity("p", "b", 1, "42")

TABLE = [
    ("nothing spent", Money(0.0, 10.0, 0.5), NONE),
    ("below the warning", Money(7.99, 10.0, 0.5), NONE),
    ("at the warning", Money(8.0, 10.0, 0.5), WARNING),
    ("above it, an hour fits", Money(9.5, 10.0, 0.5), WARNING),
    ("an hour does not fit", Money(9.51, 10.0, 0.5), NO_NEW_BOXES),
    ("an hour does not fit, before the warning", Money(6.0, 10.0, 5.0), NO_NEW_BOXES),
    ("all of it", Money(10.0, 10.0, 0.5), SPENT),
    ("more than all of it", Money(11.0, 10.0), SPENT),
    ("a warning of one's own", Money(5.0, 10.0, 0.5, warn_at=0.5), WARNING),
    ("not yet by one's own", Money(8.9, 10.0, 0.5, warn_at=0.9), NONE),
    ("no warning but the end", Money(9.9, 10.0, 0.0, warn_at=1.0), NONE),
    ("no budget", Money(99.0, None), NONE),
    ("no budget, cost unknown", Money(None, None), NONE),
    ("cost unknown", Money(None, 10.0), None),
]


@pytest.mark.parametrize(("money", "reached"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_rung(money: Money, reached: str | None) -> None:
    assert rung(money) == reached


dollars = st.floats(0, 20)


@given(st.builds(Money, dollars, st.floats(0.1, 10), st.floats(0, 3), st.floats(0.01, 1)), dollars)
def test_who_spends_more_is_never_on_a_lower_rung(money: Money, more: float) -> None:
    assert money.spent is not None
    later = rung(Money(money.spent + more, money.budget, money.reserve, money.warn_at))
    assert money_ladder.RUNGS.index(rung(money)) <= money_ladder.RUNGS.index(later)


@pytest.mark.parametrize("money", [row[1] for row in TABLE], ids=[row[0] for row in TABLE])
def test_the_decision_keeps_to_the_rung_that_was_told(money: Money) -> None:
    reached = rung(money)
    rents = decide(Situation(Verdict(verdicts.NOT_RENTED, "not there"), money=money)).kind in RENTING
    parks = decide(Situation(Verdict(verdicts.RUNNING, "at work"), money=money)).kind == PARK
    assert (rents, parks) == (reached in (NONE, WARNING), reached == SPENT)
    assert RENT in RENTING


def test_the_spec_says_when_to_warn() -> None:
    host = BoxHost("b", {"tenant_project": "p"})

    def warn_at(**budget: float) -> float:
        return spending.of_run(host, {"id": "r", "budget": budget}, [], "2026-11-21T10:00:00Z").warn_at

    assert warn_at(usd=5.0) == DEFAULT_WARN_AT == 0.8
    assert warn_at(usd=5.0, warn_at=0.5) == 0.5


# --- told once ------------------------------------------------------------------------------------------------------


def told(store: StateStore, amounts: Sequence[float | None], budget: float | None = 10.0) -> list[tuple[str, str]]:
    """What is told as a run spends, each amount seen twice and by a reader who only has the journal."""
    found = []
    for amount in amounts:
        for _look in range(2):
            journal = Journal(store)
            crossed = crossing(journal.lines(), "p", "r", Money(amount, budget, 0.5))
            if crossed is not None:
                found.append((crossed.was, crossed.now))
                money_ladder.note(journal, BOX, "r", crossed)
    return found


def test_each_rung_is_told_once_however_often_it_is_seen(tmp_path: Path) -> None:
    store = StateStore(str(tmp_path))
    up = [(NONE, WARNING), (WARNING, NO_NEW_BOXES), (NO_NEW_BOXES, SPENT)]
    assert told(store, [0.0, 5.0, 8.0, 9.0, 9.4, 9.6, 9.9, 10.0, 12.0]) == up
    assert told(store, [12.0]) == [], "nor by the next start"
    assert told(store, [12.0], 20.0) == [(SPENT, NONE)], "the budget was raised"
    assert told(store, [16.0, 17.0], 20.0) == [(NONE, WARNING)], "and is crossed anew"


def test_what_is_not_known_is_no_crossing(tmp_path: Path) -> None:
    store = StateStore(str(tmp_path))
    assert told(store, [None, 8.0, None, 8.5, None]) == [(NONE, WARNING)]
    assert told(store, [8.0], budget=None) == []


def test_runs_and_projects_have_budgets_of_their_own(tmp_path: Path) -> None:
    store = StateStore(str(tmp_path))
    told(store, [8.0])
    lines = Journal(store).lines()
    assert crossing(lines, "p", "other", Money(8.0, 10.0)) == Crossing(NONE, WARNING, Money(8.0, 10.0))
    assert crossing(lines, "q", "r", Money(8.0, 10.0)) is not None
    assert crossing([*lines, {**lines[-1], "rung": "torn"}], "p", "r", Money(8.0, 10.0)) is not None


# --- where it is seen -----------------------------------------------------------------------------------------------


def test_status_and_report_say_it(tmp_path: Path) -> None:
    store = StateStore(str(tmp_path))
    host = BoxHost("b", {"tenant_state_dir": store.root})

    def noted(run_id: str = "r") -> str:
        return fleet.read([host], "p")[store.root].budget("b", run_id)

    assert noted() == ""
    told(store, [8.0])
    assert noted().startswith("run r has spent $8.00 of its budget of $10.00: soon no other box is rented for it")
    assert noted("other") == "", "of the run that is there now nothing was told"
    told(store, [10.0])
    assert "nothing more is begun for it" in noted("")
    told(store, [10.0], 20.0)
    assert noted() == ""
    lines: list[dict[str, Any]] = Journal(store).lines()
    kinds = [(event["kind"], event["run"]) for event in report_story.events(lines, [], [], ["b"])]
    assert kinds == [("budget", "r")] * 3


def test_prometheus_is_told_the_rung_of_what_has_a_budget() -> None:
    row = {"project": "p", "box": "b", "run": "r", "verdict": "running", "budget_usd": 10.0, "budget_rung": WARNING}
    free = {**row, "box": "c", "budget_usd": None, "budget_rung": NONE}
    dark = {**row, "box": "d", "budget_rung": None}
    lines = metrics.text_of([row, free, dark], 1.0).splitlines()
    where = '{project="p",box="b",run="r"}'
    assert [line for line in lines if line.startswith("gpu_tenant_run_budget_rung")] == [
        f"gpu_tenant_run_budget_rung{where} 1"
    ]
    assert f"gpu_tenant_run_budget_usd{where} 10.0" in lines
