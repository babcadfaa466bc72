# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a run has cost so far on its box, and what may still be spent on it. Unknown is None, never 0.

By the rule that the report accounts by (:mod:`gpu_tenant.accrual`), from the moment when the box was first brought up
for the run: all its machines, the disk of those at rest too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import Box

from gpu_tenant import accrual
from gpu_tenant.decide import Money
from gpu_tenant.hosts import BoxHost
from gpu_tenant.recoveries import RECOVER

# What a rental must leave room for: an hour at the cap.
RESERVED_HOURS = 1.0


def of_run(host: BoxHost, spec: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], now: str) -> Money:
    """What the run of ``spec`` cost on this box, and its budget (``budget.usd`` of the run spec).

    :param lines: of the journal.
    """
    project = host.required("tenant_project")
    cap = price_cap(host) or 0.0
    spent = spent_usd(lines, project, host.name, str(spec.get("id")), now)
    return Money(spent, budget_usd(spec), cap * RESERVED_HOURS)


def budget_usd(spec: Mapping[str, Any]) -> float | None:
    """The most that the run may cost; None when its spec, which was checked when it was read, names no budget."""
    usd = (spec.get("budget") or {}).get("usd")
    return None if usd is None else float(usd)


def spent_usd(lines: Sequence[Mapping[str, Any]], project: str, box: str, run_id: str, now: str) -> float | None:
    """Dollars since the runner first brought the box up for the run; None when a rate is not known."""
    ours = [line for line in lines if (line.get("project"), line.get("box")) == (project, box)]
    begun = [str(line.get("at")) for line in ours if line.get("verb") == RECOVER and line.get("run_id") == run_id]
    since = next(filter(accrual.is_moment, begun), "")
    if not since:
        return 0.0
    held = [one for acts in accrual.acts_by_machine(ours).values() for one in accrual.intervals(acts, now)[0]]
    return accrual.total(later for later in (one.after(since) for one in held) if later is not None)


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
