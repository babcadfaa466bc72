# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How far a run, or its project, is through its budget: a warning first, then no new boxes, then the end of its work.

Which rung is reached is pure. That a rung was reached is told once, by whoever sees it first, and the journal remembers
it: for a ``watch`` that cron starts anew each time, for ``status`` and for the report. Each box sees a budget that it
shares with others by a price cap of its own, so a rung that was told stands until the budget is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.purse import Purse
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity

from gpu_tenant.decide import Money

WARNING = "budget-warning"
NO_NEW_BOXES = "no-new-boxes"
SPENT = "budget-spent"
# None is below all of them.
NONE = ""
RUNGS = (NONE, WARNING, NO_NEW_BOXES, SPENT)
# Of the journal: the run's, and the project's.
BUDGET = "budget"
PROJECT_BUDGET = "project-budget"
_ENDS = "no other box is rented for it, and {} parked once all is spent, where {} can"
_GOES_ON = {
    BUDGET: _ENDS.format("it is", "its platform"),
    PROJECT_BUDGET: _ENDS.format("its runs are", "their platforms"),
}
_ENDED = {
    BUDGET: "it is parked where its platform can, and nothing more is begun for it",
    PROJECT_BUDGET: "its runs are parked where their platforms can, and nothing more is begun for it",
}


def rung(money: Money) -> str | None:
    """The highest rung of the run's budget that is reached; None while nobody knows what was spent."""
    return reached(money.run)


def reached(purse: Purse) -> str | None:
    """The highest rung of one budget."""
    if purse.budget is None:
        return NONE
    if purse.spent is None:
        return None
    if purse.is_spent:
        return SPENT
    if not purse.has_room:
        return NO_NEW_BOXES
    return WARNING if purse.is_near else NONE


@dataclass(frozen=True)
class Crossing:
    """From one rung to another one: up as money is spent, down when the budget is raised.

    :param money: what is gone of the budget that it is about.
    :param project: whose budget it is; empty for the run's.
    """

    was: str
    now: str
    money: Purse
    project: str = ""

    @property
    def is_up(self) -> bool:
        return RUNGS.index(self.now) > RUNGS.index(self.was)

    @property
    def verb(self) -> str:
        return PROJECT_BUDGET if self.project else BUDGET

    def text(self, run_id: str) -> str:
        """What a person should know: what was spent, and what comes next."""
        owner = f"project {self.project}" if self.project else f"run {run_id}"
        return f"{owner} has {words(self.now, self.money.spent, self.money.budget, self.verb)}"


def words(at_rung: str, spent: float | None, budget: float | None, verb: str = BUDGET) -> str:
    """``spent $4.10 of its budget of $5.00; …``, for an alert and for a status."""
    told = f"spent ${spent or 0.0:.2f} of its budget of ${budget or 0.0:.2f}"
    follows = {WARNING: f"soon {_GOES_ON[verb]}", NO_NEW_BOXES: _GOES_ON[verb], SPENT: _ENDED[verb]}
    return f"{told}: {follows[at_rung]}" if at_rung in follows else f"{told}: there is room again"


def crossing(lines: Sequence[Mapping[str, Any]], project: str, run_id: str, money: Money) -> Crossing | None:
    """Whether the run, or else its project, is on another rung than was last told; what is not known changes nothing.

    :param lines: of the journal.
    """
    of_run = [line for line in lines if _is_of(line, BUDGET, project, run_id)]
    was = _crossed(of_run, money.run)
    if was is not None:
        return Crossing(was, rung(money) or NONE, money)
    was = _crossed([line for line in lines if _is_of(line, PROJECT_BUDGET, project)], money.project)
    return None if was is None else Crossing(was, reached(money.project) or NONE, money.project, project)


def _crossed(told: Sequence[Mapping[str, Any]], purse: Purse) -> str | None:
    """The rung that was last told, where another one is to be told now; None where not."""
    now, last = reached(purse), told[-1] if told else {}
    if purse.budget is None or now is None:
        return None
    was = str(last.get("rung"))
    was = was if was in RUNGS else NONE
    is_down = RUNGS.index(now) < RUNGS.index(was)
    stands = was == now or (is_down and records.finite(last.get("budget_usd")) == purse.budget)
    return None if stands else was


def note(journal: Journal, identity: BoxIdentity, run_id: str, crossed: Crossing) -> None:
    """It was told: nobody tells it again."""
    facts = {"rung": crossed.now, "spent_usd": crossed.money.spent, "budget_usd": crossed.money.budget}
    owner = {} if crossed.project else {"run_id": run_id}
    journal.append("effect", crossed.verb, **identity.as_dict(), **owner, **facts)


def newest(lines: Iterable[Mapping[str, Any]], project: str) -> dict[str, Mapping[str, Any]]:
    """By run, the last line of the journal on its budget."""
    return {str(line.get("run_id")): line for line in lines if _is_of(line, BUDGET, project)}


def told_by(line: Mapping[str, Any]) -> str:
    """What such a line says, as :func:`words`."""
    spent, budget = records.finite(line.get("spent_usd")), records.finite(line.get("budget_usd"))
    is_of_project = line.get("verb") == PROJECT_BUDGET
    told = words(str(line.get("rung")), spent, budget, PROJECT_BUDGET if is_of_project else BUDGET)
    return f"project {line.get('project')} has {told}" if is_of_project else told


def _is_of(line: Mapping[str, Any], verb: str, project: str, run_id: str | None = None) -> bool:
    is_told = line.get("verb") == verb and line.get("kind") == "effect" and line.get("project") == project
    return is_told and run_id in (None, line.get("run_id"))
