# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a run has cost so far by the journal, and what may still be spent on it. Unknown is None, never 0.

An estimate at the price that was agreed, for the hours between the starts and stops that we know of; a box that its
provider stopped counts as running, and a disk at rest counts nothing. The provider's own bill is in the account.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import Box, number

from gpu_tenant.decide import Money
from gpu_tenant.hosts import BoxHost
from gpu_tenant.recoveries import RECOVER

# What a rental must leave room for: an hour at the cap.
RESERVED_HOURS = 1.0
_BEGINS = ("rent", "start", "seen-started")
_ENDS = ("stop", "destroy")


def of_run(host: BoxHost, spec: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], now: str) -> Money:
    """What the run of ``spec`` cost on this box, and its budget (``budget.usd`` of the run spec).

    :param lines: of the journal.
    :raises TenantFailure: kind ``config`` for a budget that is no number of dollars.
    """
    project = host.required("tenant_project")
    cap = price_cap(host) or 0.0
    spent = spent_usd(lines, project, host.name, str(spec.get("id")), now)
    return Money(spent, budget_usd(spec), cap * RESERVED_HOURS)


def budget_usd(spec: Mapping[str, Any]) -> float | None:
    """The most that the run may cost; None when its spec names no budget."""
    given = (spec.get("budget") or {}).get("usd")
    if given is None:
        return None
    usd = number(given)
    if usd is None or usd <= 0:
        raise TenantFailure(
            "config",
            f"budget.usd of run {spec.get('id')} is {given!r}, and a number of dollars above 0 is wanted",
            safe="nothing was rented",
            fix="write it in the run spec as a plain number, for example: budget: {usd: 2.5}",
        )
    return usd


def spent_usd(lines: Sequence[Mapping[str, Any]], project: str, box: str, run_id: str, now: str) -> float | None:
    """Dollars since the runner first brought the box up for the run; None when a price is not known."""
    ours = [line for line in lines if (line.get("project"), line.get("box")) == (project, box)]
    since = next((str(line["at"]) for line in ours if line.get("verb") == RECOVER and line.get("run_id") == run_id), "")
    if not since:
        return 0.0
    total = 0.0
    for provider_id in sorted({str(line["provider_id"]) for line in ours if line.get("provider_id")}):
        story = [line for line in ours if str(line.get("provider_id")) == provider_id and line.get("kind") == "effect"]
        hours = _hours(story, since, now)
        price = next((number(line.get("price_per_hour")) for line in story if line.get("verb") == "rent"), None)
        if hours > 0 and price is None:
            return None
        total += hours * (price or 0.0)
    return total


def _hours(story: Iterable[Mapping[str, Any]], since: str, now: str) -> float:
    """Hours between ``since`` and ``now`` in which the box was not stopped by us."""
    total, begun = 0.0, None
    for line in story:
        at = max(str(line.get("at")), since)
        if line.get("verb") in _BEGINS and begun is None:
            begun = at
        elif line.get("verb") in _ENDS and begun is not None:
            total, begun = total + _between(begun, at), None
    return total + (_between(begun, now) if begun is not None else 0.0)


def _between(begun: str, ended: str) -> float:
    span = (records.parse_utc(ended) - records.parse_utc(begun)).total_seconds()
    return max(0.0, float(span)) / 3600.0


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
