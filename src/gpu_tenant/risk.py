# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Work at risk: what would be lost if box and disk vanished now. Pure."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.box.wording import duration
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.lease import CLOCK_TOLERANCE_S

from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation

PULLED = "pull"
DEFAULT_RPO_S = 600.0


@dataclass(frozen=True)
class Risk:
    """What would be lost; None is unknown, or nothing at work.

    :param rpo_s: how much it may become before a watch pulls; None where nothing is pulled for that.
    """

    seconds: float | None = None
    usd: float | None = None
    rpo_s: float | None = None

    def text(self) -> str:
        """``; 7 min since the last durable checkpoint (RPO 10 min), $0.31``; empty where nothing is at work."""
        if self.seconds is None:
            return ""
        most = "" if self.rpo_s is None else f" (RPO {duration(self.rpo_s)})"
        price = "cost unknown" if self.usd is None else f"${self.usd:.2f}"
        return f"; {duration(self.seconds)} since the last durable checkpoint{most}, {price}"


def keeps_by_pull(host: BoxHost) -> bool:
    """Whether a box's work is safe only once it was pulled: no mount and no bucket outlives it."""
    return host.text("platform_durable_kind", "pull") == "pull"


def rpo_s(host: BoxHost) -> float:
    """How much work may be at risk, in seconds (``tenant_rpo_s``); 0 never pulls.

    :raises TenantFailure: kind ``config``, for what is no number.
    """
    told = host.text("tenant_rpo_s", str(DEFAULT_RPO_S))
    with contextlib.suppress(ValueError):
        number = float(told)
        # No comparison with nan ever holds: a watch would go by it and never pull.
        if 0 <= number < math.inf:
            return number
    fix = "write a number of seconds, or 0 for never"
    raise TenantFailure("config", f"tenant_rpo_s is {told!r}", host.name, "nothing was pulled", fix)


def shown_rpo_s(host: BoxHost) -> float | None:
    """The same for people; None where no pull is due by it. What is no number is told by whoever goes by it."""
    try:
        return (rpo_s(host) or None) if keeps_by_pull(host) else None
    except TenantFailure:
        return None


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


def priced(host: BoxHost, seconds: float | None, seen: Observation | None) -> Risk:
    """The same with what it costs to train it again at today's price."""
    price = seen.item.dph_total if seen and seen.item else None
    usd = None if seconds is None or price is None else seconds / 3600.0 * price
    return Risk(seconds, usd, shown_rpo_s(host))


def _seconds_since(moment: str) -> float | None:
    """None where nobody knows: by a moment that is still to come, no pull would be due until then."""
    if not moment:
        return None
    span = (records.parse_utc(records.utc_now()) - records.parse_utc(moment)).total_seconds()
    return max(0.0, float(span)) if span >= -CLOCK_TOLERANCE_S else None
