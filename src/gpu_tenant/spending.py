# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a run has cost so far, and what may still be spent on it. Unknown is None, never 0.

By the rule that the report accounts by (:mod:`gpu_tenant.accrual`): every box that was brought up for the run, from the
moment when it first was, with all its machines and the disk of those at rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import Box

from gpu_tenant import accrual, recoveries
from gpu_tenant.decide import DEFAULT_WARN_AT, RUNG_SHARE, Costs, Money
from gpu_tenant.hosts import BoxHost

# What a rental must leave room for: an hour at the cap.
RESERVED_HOURS = 1.0


def of_run(host: BoxHost, spec: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], now: str) -> Money:
    """What the run of ``spec`` cost, whichever boxes it was on, and its budget (``budget.usd`` of the run spec).

    :param host: a box of the run; its cap stands for rates that no provider told.
    :param lines: of the journal.
    """
    cap = price_cap(host)
    spent = spent_usd(lines, host.required("tenant_project"), str(spec.get("id")), now, cap)
    warn_at = (spec.get("budget") or {}).get("warn_at", DEFAULT_WARN_AT)
    rungs = rung_costs(lines, host.required("tenant_project"), host.name, now, cap)
    return Money(spent, budget_usd(spec), (cap or 0.0) * RESERVED_HOURS, float(warn_at), per_rung_usd(spec), rungs)


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


def spent_usd(
    lines: Sequence[Mapping[str, Any]], project: str, run_id: str, now: str, unknown_per_hour: float | None = None
) -> float | None:
    """Dollars since the runner first brought each box up for the run.

    :param unknown_per_hour: what an hour of an unknown rate counts for; without it, one makes the answer None.
    """
    ours = [line for line in lines if line.get("project") == project]
    since: dict[str, str] = {}
    for line in ours:
        is_begun = line.get("verb") == recoveries.RECOVER and line.get("run_id") == run_id
        if is_begun and accrual.is_moment(str(line.get("at"))):
            since.setdefault(str(line.get("box")), str(line["at"]))
    held = [
        interval.after(since[box])
        for (_project, box, _id), acts in accrual.acts_by_machine(ours).items()
        if box in since
        for interval in accrual.intervals(acts, now)[0]
    ]
    return accrual.total((later for later in held if later is not None), unknown_per_hour)


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
