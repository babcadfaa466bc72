# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What was tried to recover a box, in the journal: so that a runner that was killed does not begin its ladder anew."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import spent
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity

from gpu_tenant import decide
from gpu_tenant.decide import Tried

RECOVER = spent.RECOVER
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


@dataclass(frozen=True)
class Try:
    """A rung that was tried; ``until`` the next act to bring the box up began, or now."""

    rung: str
    since: str
    until: str


def tries(lines: Iterable[Mapping[str, Any]], project: str, box: str, now: str) -> list[Try]:
    """What was tried for the box since the run last trained, oldest first.

    :param now: as :func:`records.utc_now` writes it.
    """
    found: list[Try] = []
    begun: tuple[str, str] | None = None
    for line in lines:
        verb = line.get("verb")
        if (line.get("project"), line.get("box")) != (project, box) or verb not in (RECOVER, RECOVERED):
            continue
        rung, at = str(line.get("rung")), str(line.get("at"))
        if begun is not None:
            found.append(Try(*begun, until=at))
        if verb == RECOVERED:
            found.clear()
        is_try = verb == RECOVER and rung in decide.RUNGS and _age_s(line, now) < WINDOW_S
        begun = (rung, at) if is_try else None
    return [*found, Try(*begun, until=now)] if begun is not None else found


def tried(lines: Iterable[Mapping[str, Any]], project: str, box: str, now: str) -> Tried:
    """How often each rung was tried since the run last trained."""
    return Tried(**Counter(one.rung for one in tries(lines, project, box, now)))


def last_run(lines: Iterable[Mapping[str, Any]], project: str, box: str) -> str:
    """The run for which the box was last brought up; empty where nobody noted one."""
    begun = [line for line in lines if line.get("verb") == RECOVER and line.get("box") == box]
    ours = [str(line.get("run_id") or "") for line in begun if line.get("project") == project]
    return ours[-1] if ours else ""


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
