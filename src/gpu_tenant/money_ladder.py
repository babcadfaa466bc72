# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How far a run is through its budget: a warning first, then no new boxes, then the end of its work.

Which rung is reached is pure. That a rung was reached is told once, by whoever sees it first, and the journal remembers
it: for a ``watch`` that cron starts anew each time, for ``status`` and for the report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity

from gpu_tenant.decide import Money

WARNING = "budget-warning"
NO_NEW_BOXES = "no-new-boxes"
SPENT = "budget-spent"
# None is below all of them.
NONE = ""
RUNGS = (NONE, WARNING, NO_NEW_BOXES, SPENT)
# Of the journal.
BUDGET = "budget"


def rung(money: Money) -> str | None:
    """The highest rung that is reached; None while nobody knows what was spent."""
    if money.budget is None:
        return NONE
    if money.spent is None:
        return None
    if money.is_spent:
        return SPENT
    if not money.has_room:
        return NO_NEW_BOXES
    return WARNING if money.is_near else NONE


@dataclass(frozen=True)
class Crossing:
    """From one rung to another one: up as money is spent, down when the budget is raised."""

    was: str
    now: str
    money: Money

    @property
    def is_up(self) -> bool:
        return RUNGS.index(self.now) > RUNGS.index(self.was)

    def text(self, run_id: str) -> str:
        """What a person should know: what was spent, and what comes next."""
        return f"run {run_id} has {words(self.now, self.money.spent, self.money.budget)}"


def words(reached: str, spent: float | None, budget: float | None) -> str:
    """``spent $4.10 of its budget of $5.00; …``, for an alert and for a status."""
    told = f"spent ${spent or 0.0:.2f} of its budget of ${budget or 0.0:.2f}"
    follows = {
        WARNING: "soon no other box is rented for it, and it is parked once all is spent, where its platform can",
        NO_NEW_BOXES: "no other box is rented for it, and it is parked once all is spent, where its platform can",
        SPENT: "it is parked where its platform can, and nothing more is begun for it",
    }
    return f"{told}: {follows[reached]}" if reached in follows else f"{told}: there is room again"


def crossing(lines: Sequence[Mapping[str, Any]], project: str, run_id: str, money: Money) -> Crossing | None:
    """Whether the run is on another rung than was last told; what is not known changes nothing.

    :param lines: of the journal.
    """
    reached = rung(money)
    if money.budget is None or reached is None:
        return None
    was = next((str(line.get("rung")) for line in reversed(lines) if _is_of(line, project, run_id)), NONE)
    was = was if was in RUNGS else NONE
    return None if was == reached else Crossing(was, reached, money)


def note(journal: Journal, identity: BoxIdentity, run_id: str, crossed: Crossing) -> None:
    """It was told: nobody tells it again."""
    facts = {"rung": crossed.now, "spent_usd": crossed.money.spent, "budget_usd": crossed.money.budget}
    journal.append("effect", BUDGET, **identity.as_dict(), run_id=run_id, **facts)


def newest(lines: Iterable[Mapping[str, Any]], project: str) -> dict[str, Mapping[str, Any]]:
    """By run, the last line of the journal on its budget."""
    return {str(line.get("run_id")): line for line in lines if _is_of(line, project)}


def told_by(line: Mapping[str, Any]) -> str:
    """What such a line says, as :func:`words`."""
    return words(str(line.get("rung")), records.finite(line.get("spent_usd")), records.finite(line.get("budget_usd")))


def _is_of(line: Mapping[str, Any], project: str, run_id: str | None = None) -> bool:
    of_project = line.get("verb") == BUDGET and line.get("kind") == "effect" and line.get("project") == project
    return of_project and run_id in (None, line.get("run_id"))
