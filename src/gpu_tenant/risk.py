# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Work at risk: what would be lost if box and disk vanished now. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import records

from gpu_tenant.hosts import BoxHost
from gpu_tenant.observe import Observation

PULLED = "pull"


@dataclass(frozen=True)
class Risk:
    """What would be lost; None is unknown, or nothing at work."""

    seconds: float | None = None
    usd: float | None = None


def keeps_by_pull(host: BoxHost) -> bool:
    """Whether a box's work is safe only once it was pulled: no mount and no bucket outlives it."""
    return host.text("platform_durable_kind", "pull") == "pull"


def last_pull(lines: Iterable[Mapping[str, Any]], project: str, box: str, run_id: str) -> str:
    """When the last pull began, UTC text: what was saved later did not come along. Empty without one."""
    ours = [
        str(line.get("began_at"))
        for line in lines
        if line.get("verb") == PULLED and line.get("kind") == "effect"
        if (line.get("project"), line.get("box"), line.get("run_id")) == (project, box, run_id)
    ]
    return ours[-1] if ours else ""


def at_risk_s(host: BoxHost, seen: Observation | None, pulled_at: str, at_work_s: float | None) -> float | None:
    """Seconds of training since the last checkpoint that outlives the box.

    :param pulled_at: when the last pull began; empty without one.
    :param at_work_s: for how long the box has been seen at work, where neither the box nor the journal says more.
    """
    run = seen.run if seen else None
    if run is None or run.state != "running":
        return None
    cell: Mapping[str, Any] = next((each for each in run.raw.get("cells", []) if each.get("state") == "running"), {})
    running_s = records.finite(cell.get("running_s"))
    if not keeps_by_pull(host):
        saved = cell.get("last_checkpoint")
        return (records.finite(saved.get("age_s")) if isinstance(saved, Mapping) else None) or running_s
    known = [each for each in (running_s, _seconds_since(pulled_at)) if each is not None]
    return min(known) if known else at_work_s


def priced(seconds: float | None, seen: Observation | None) -> Risk:
    """The same with what it costs to train it again at today's price."""
    price = seen.item.dph_total if seen and seen.item else None
    return Risk(seconds, None if seconds is None or price is None else seconds / 3600.0 * price)


def _seconds_since(moment: str) -> float | None:
    if not moment:
        return None
    span = (records.parse_utc(records.utc_now()) - records.parse_utc(moment)).total_seconds()
    return max(0.0, float(span))
