# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What was tried to recover a box, in the journal: so that a runner that was killed does not begin its ladder anew."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity

from gpu_tenant import decide
from gpu_tenant.decide import Tried

RECOVER = "recover"
RECOVERED = "recovered"
# What was tried so long ago may be tried again: markets change.
WINDOW_S = 6 * 3600.0
# A machine that a box was lost on is not rented again for so long; its record of failures counts for longer.
EXCLUDED_S = 24 * 3600.0


def begin(
    journal: Journal, identity: BoxIdentity, action: decide.Action, run_id: str, verdict: str, machine_id: int | None
) -> None:
    """Note that a box is brought up, before it is: a try that was cut short counts as well."""
    facts = {"run_id": run_id, "rung": action.kind, "verdict": verdict, "why": action.why, "machine_id": machine_id}
    journal.append("intent", RECOVER, **identity.as_dict(), **facts)


def note_training(journal: Journal, identity: BoxIdentity) -> None:
    """The run trains again: what was tried for it counts no more."""
    journal.append("effect", RECOVERED, **identity.as_dict())


def tried(lines: Iterable[Mapping[str, Any]], project: str, box: str, now: str) -> Tried:
    """How often each rung was tried since the run last trained.

    :param now: as :func:`records.utc_now` writes it.
    """
    counts: dict[str, int] = {}
    for line in lines:
        if (line.get("project"), line.get("box")) != (project, box):
            continue
        if line.get("verb") == RECOVERED:
            counts.clear()
        rung = str(line.get("rung"))
        if line.get("verb") == RECOVER and rung in decide.RUNGS and _age_s(line, now) < WINDOW_S:
            counts[rung] = counts.get(rung, 0) + 1
    return Tried(**counts)


def bad_machines(lines: Iterable[Mapping[str, Any]], now: str) -> list[int]:
    """Machines that boxes were lost on lately: those that the next offer replaced."""
    found = {
        int(line["machine_id"])
        for line in lines
        if line.get("verb") == RECOVER
        and line.get("rung") == decide.NEXT_OFFER
        and records.is_count(line.get("machine_id"))
        and _age_s(line, now) < EXCLUDED_S
    }
    return sorted(found)


def _age_s(line: Mapping[str, Any], now: str) -> float:
    try:
        span: datetime.timedelta = records.parse_utc(now) - records.parse_utc(str(line.get("at")))
    except ValueError:
        return 0.0
    return span.total_seconds()
