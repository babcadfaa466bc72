# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a run and its project have cost so far, and what may still be spent on them. Unknown is None, never 0.

By the rule that whoever is about to rent goes by too (:mod:`..module_utils.spent`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import accrual, spent
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.purse import DEFAULT_WARN_AT, UNLIMITED, Purse
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import Box
from ansible_collections.tenant.gpu.plugins.module_utils.spent import Limit

from gpu_tenant import recoveries
from gpu_tenant.decide import RUNG_SHARE, Costs, Money
from gpu_tenant.hosts import BoxHost


def of_run(host: BoxHost, spec: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], now: str) -> Money:
    """What the run of ``spec`` cost, whichever boxes it was on, and its budget (``budget.usd`` of the run spec); and
    the same of its project.

    :param host: a box of the run; its cap stands for rates that no provider told.
    :param lines: of the journal.
    """
    cap, project = price_cap(host), host.required("tenant_project")
    warn_at = float((spec.get("budget") or {}).get("warn_at", DEFAULT_WARN_AT))
    run = spent.purse(lines, Limit(project, budget_usd(spec), warn_at, str(spec.get("id"))), host.name, cap, now)
    rungs = rung_costs(lines, project, host.name, now, cap)
    whole = of_project(host, lines, now)
    return Money(run.spent, run.budget, run.reserve, run.warn_at, run.held, per_rung_usd(spec), rungs, whole)


def of_project(host: BoxHost, lines: Sequence[Mapping[str, Any]], now: str) -> Purse:
    """What is gone of the project's budget, as this box of it sees it; an empty purse where it has none."""
    limit = project_limit(host)
    if limit.usd is None:
        return UNLIMITED
    return spent.purse(lines, limit, host.name, price_cap(host), now)


def project_limit(host: BoxHost) -> Limit:
    """``tenant_budget_usd`` and ``tenant_budget_warn_at`` of the inventory. TenantFailure for what is no budget."""
    usd = _amount(host, "tenant_budget_usd", float("inf"))
    warn_at = _amount(host, "tenant_budget_warn_at", 1.0)
    return Limit(host.required("tenant_project"), usd, DEFAULT_WARN_AT if warn_at is None else warn_at)


def _amount(host: BoxHost, name: str, most: float) -> float | None:
    told = host.text(name)
    if not told:
        return None
    try:
        amount = records.finite(float(told))
    except ValueError:
        amount = None
    if amount is not None and 0 < amount <= most:
        return amount
    wanted = "a plain number of dollars above 0" if most > 1 else "a share above 0 and at most 1"
    what = f"{name} is {told!r}, and {wanted} is wanted"
    raise TenantFailure("config", what, host.name, "nothing was begun", f"correct {name} in the inventory")


def budget_usd(spec: Mapping[str, Any]) -> float | None:
    """The most that the run may cost; None when its spec, which was checked when it was read, names no budget."""
    usd = (spec.get("budget") or {}).get("usd")
    return None if usd is None else float(usd)


def per_rung_usd(spec: Mapping[str, Any]) -> float | None:
    """What each rung may cost before it is tried no more (``budget.rung_usd``), else a share of the budget; None
    without either."""
    told, whole = (spec.get("budget") or {}).get("rung_usd"), budget_usd(spec)
    if told is not None:
        return float(told)
    return None if whole is None else RUNG_SHARE * whole


def rung_costs(
    lines: Sequence[Mapping[str, Any]], project: str, box: str, now: str, unknown_per_hour: float | None = None
) -> Costs:
    """What all machines of the box cost from each try of a rung until the next act, since the run last trained."""
    tries = recoveries.tries(lines, project, box, now)
    if not tries:
        return Costs()
    machines = accrual.acts_by_machine(
        line for line in lines if (line.get("project"), line.get("box")) == (project, box)
    )
    held = [interval for acts in machines.values() for interval in accrual.intervals(acts, now)[0]]
    found: dict[str, float | None] = {}
    for one in tries:
        cost, before = _cost_of(one, held, unknown_per_hour), found.get(one.rung, 0.0)
        found[one.rung] = None if cost is None or before is None else before + cost
    return Costs(**found)


def _cost_of(one: recoveries.Try, held: Sequence[accrual.Interval], unknown_per_hour: float | None) -> float | None:
    if not (accrual.is_moment(one.since) and accrual.is_moment(one.until)):
        return None
    later = [part for interval in held if (part := interval.after(one.since)) is not None]
    return accrual.total((part for each in later if (part := each.before(one.until)) is not None), unknown_per_hour)


def price_cap(host: BoxHost) -> float | None:
    """The consent to rent, dollars an hour; None where it is not set."""
    try:
        cap = float(host.text("provision_price_cap", "0"))
    except ValueError:
        return None
    return cap if cap > 0 else None


def raise_fits(host: BoxHost, item: Box | None) -> bool | None:
    """Whether the least bid that wins fits under the cap, disk included; None while nobody says."""
    cap = price_cap(host)
    if item is None or cap is None or item.min_bid is None or item.storage_per_hour is None:
        return None
    return item.min_bid + item.storage_per_hour <= cap + 1e-9
