# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a run and its project may cost in all, whoever rents for them. Asked under the account's lock, just before a
create, so that of two processes the second sees what the first has rented.

What was spent is what accrued by the journal, which every process writes that rents, stops or ends a box.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping

from . import spent
from .box import records
from .failures import TenantFailure
from .journal import Journal
from .purse import Purse
from .spent import Limit

# The argument spec of the option ``budgets``.
OPTIONS: dict[str, dict[str, Any]] = {
    "budgets": {
        "type": "dict",
        "default": {},
        "options": {"run": {"type": "str"}, "run_usd": {"type": "float"}, "project_usd": {"type": "float"}},
    }
}
# What to raise, and where it is declared.
_RUN_FIX = "raise budget.usd in the run spec"
_PROJECT_FIX = "raise tenant_budget_usd in the inventory"


@dataclass(frozen=True)
class Budgets:
    """Dollars; None is no limit.

    :param run: the id of the run that a box is rented for; empty where nobody names one.
    """

    run: str = ""
    run_usd: float | None = None
    project_usd: float | None = None

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Budgets:
        """What the option ``budgets`` says."""
        told = options.get("budgets") or {}
        return cls(str(told.get("run") or ""), told.get("run_usd"), told.get("project_usd"))

    @property
    def terms(self) -> dict[str, Any]:
        """What the journal's line of a rental says of them: its cost counts for that run."""
        return {"run_id": self.run} if self.run else {}

    def limits(self, project: str) -> list[Limit]:
        of_run = [Limit(project, self.run_usd, run_id=self.run)] if self.run else []
        return [limit for limit in (*of_run, Limit(project, self.project_usd)) if limit.usd is not None]


NO_BUDGETS = Budgets()


def refuse_overspent(journal: Journal, budgets: Budgets, project: str, box: str, cap: float | None) -> None:
    """TenantFailure where an hour at the cap does not fit into the budget of the run, or of the project."""
    limits = budgets.limits(project)
    for limit in limits:
        _check(limit, box)
    lines = journal.lines() if limits else []
    for limit in limits:
        _refuse(limit, spent.purse(lines, limit, box, cap, records.utc_now()), box)


def note_served(journal: Journal, budgets: Budgets, identity: Mapping[str, Any]) -> None:
    """That a box which was there already is there for this run from now on, once: what it costs counts for the run.

    :param identity: project, box, generation and provider id.
    """
    if not budgets.run:
        return
    if not spent.is_served(journal.lines(), str(identity["project"]), budgets.run, str(identity["box"])):
        journal.append("effect", spent.SERVES, run_id=budgets.run, **identity)


def lack_of(purse: Purse) -> str:
    """Why a purse has no room for one more box, in words that follow its owner; empty where it has."""
    if purse.has_room:
        return ""
    budget = f"its budget of ${purse.budget or 0.0:.2f}"
    if purse.spent is None:
        return f"has spent nobody knows what of {budget}, because a rate was not told and no cap is set"
    told = f"has spent ${purse.spent:.2f} of {budget}"
    if purse.is_spent:
        return told
    held = f", beside the ${purse.held:.2f} that boxes rented a moment ago have reserved" if purse.held else ""
    return f"{told}, and an hour of one more box at its price cap, ${purse.reserve:.2f}, does not fit{held}"


def _refuse(limit: Limit, purse: Purse, box: str) -> None:
    lack = lack_of(purse)
    if not lack:
        return
    owner, fix = (f"run {limit.run_id}", _RUN_FIX) if limit.run_id else (f"project {limit.project}", _PROJECT_FIX)
    fix += ", or lower provision_price_cap" if purse.spent is not None and not purse.is_spent else ""
    raise TenantFailure("budget", f"{owner} {lack}", box, "nothing was rented; what is rented goes on as it is", fix)


def _check(limit: Limit, box: str) -> None:
    """An infinite or negative budget would be none."""
    amount = records.finite(limit.usd)
    if amount is None or amount <= 0:
        name, fix = ("budget.usd", _RUN_FIX) if limit.run_id else ("tenant_budget_usd", _PROJECT_FIX)
        what = f"{name} is {limit.usd}, and dollars above 0 are wanted"
        raise TenantFailure("config", what, box, "nothing was rented", f"{fix}, or leave it out for no limit")
