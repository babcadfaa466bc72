# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Machines that the box at work took the place of, and what ``go`` says and does about them: they bill until somebody
ends them, and one that comes back by itself trains beside it, for nothing on it knows of another."""

from __future__ import annotations

import datetime
from collections.abc import Callable

from ansible_collections.tenant.gpu.plugins.module_utils import supersession
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import Box
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore

from gpu_tenant.observation import Observation
from gpu_tenant.progress import Progress

_AT_WORK = ("running", "loading")
# One that goes on working although a harvest told it to stop is told again, no sooner than this.
STOP_AGAIN_S = 600.0


class Replaced:
    """Of one run; what it has said and asked for is forgotten with the process, and costs a second harvest then."""

    def __init__(self, progress: Progress, clock: Callable[[], float]) -> None:
        self._progress, self._clock = progress, clock
        self._told: set[str] = set()
        self._settled: set[str] = set()
        self._stopped_at: dict[str, float] = {}

    def tell(self, seen: Observation, store: StateStore, project: str) -> None:
        """Name each of them, once, with its deadline."""
        for old in seen.superseded:
            if old.provider_id not in self._told:
                self._told.add(old.provider_id)
                since = _replaced_at(old, seen.box, store, project)
                due = f"; it is to be harvested and destroyed by {supersession.due_at(since)}" if since else ""
                what = f"instance {old.provider_id} of generation {old.generation} was replaced and bills{due}"
                self._progress.emit("warning", what, seen.box)

    def is_due(self, seen: Observation, store: StateStore, project: str) -> bool:
        """Whether a harvest is to deal with one of them now: the deadline has passed since this was asked last, or it
        works again. Every harvest tells them to stop."""
        late, back = self._newly_overdue(seen, store, project), self._newly_back(seen)
        if late:
            text = f"overdue: instance {late} was replaced; it is harvested now, and ended if the gate lets it go"
            self._progress.emit("warning", text, seen.box)
        if back:
            text = f"instance {back} was replaced and works again, beside the one that counts: it is told to stop"
            self._progress.emit("warning", text, seen.box)
        return bool(late or back)

    def _newly_overdue(self, seen: Observation, store: StateStore, project: str) -> str:
        fresh = {old.provider_id for old in overdue(seen, store, project)} - self._settled
        self._settled |= fresh
        return ", ".join(sorted(fresh))

    def _newly_back(self, seen: Observation) -> str:
        now = self._clock()
        working = {old.provider_id for old in seen.superseded if old.state in _AT_WORK}
        back = {name for name in working if now - self._stopped_at.get(name, float("-inf")) >= STOP_AGAIN_S}
        # One that rested meanwhile is told at once when it comes back a second time.
        self._stopped_at = {name: now if name in back else self._stopped_at[name] for name in working}
        return ", ".join(sorted(back))


def overdue(seen: Observation, store: StateStore, project: str, by_s: float = 0.0) -> list[Box]:
    """Those that are past their deadline by so many seconds."""
    now = records.utc_text(datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=by_s))
    moments = [(old, _replaced_at(old, seen.box, store, project)) for old in seen.superseded]
    return [old for old, since in moments if since is not None and supersession.is_overdue(since, now)]


def _replaced_at(old: Box, box: str, store: StateStore, project: str) -> datetime.datetime | None:
    return supersession.replaced_at(store, BoxIdentity(project, box, old.generation, old.provider_id))
