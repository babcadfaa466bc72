# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How far the runs of a box were last known to be: what would be missed if the box never came back.

``{run: {cell: {step, done}}}``. Every look at a box adds to it and none takes away, so that a box that is lost after a
look is lost with its progress known. The names are the box's own words, so there is an end to them: what we know of the
box from elsewhere is always noted, of other runs and cells only so many.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from dataclasses import dataclass
from typing import Any, Iterable, Mapping

from .box import records
from .box.names import UnsafeName, check_name
from .state_store import BoxIdentity, StateStore

# Runs that no record of ours names, and cells of one run. A sweep of ten thousand cells is spread over many runs.
MOST_STRANGE_RUNS = 256
MOST_CELLS = 10_000


@dataclass(frozen=True)
class Reached:
    """``step`` is the newest checkpoint's, None without any; ``done`` is a finished cell."""

    step: int | None = None
    done: bool = False

    def at_least(self, other: Reached) -> bool:
        """Whether nothing of ``other`` is beyond this."""
        return (self.done or not other.done) and _number(self.step) >= _number(other.step)

    def furthest(self, other: Reached) -> Reached:
        steps = [step for step in (self.step, other.step) if step is not None]
        return Reached(max(steps, default=None), self.done or other.done)

    def __str__(self) -> str:
        if self.done:
            return "finished"
        return "no checkpoint" if self.step is None else f"step {self.step}"

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


Progress = Mapping[str, Mapping[str, Reached]]


def _number(step: int | None) -> int:
    return -1 if step is None else step


def parse(runs: object) -> dict[str, dict[str, Reached]] | None:
    """``{run: {cell: Reached}}`` from a record; None when it cannot be read whole."""
    if not isinstance(runs, Mapping):
        return None
    found: dict[str, dict[str, Reached]] = {}
    try:
        for run_id, cells in runs.items():
            found[check_name("run", run_id)] = {
                check_name("cell", cell): _parse_cell(value) for cell, value in cells.items()
            }
    except (UnsafeName, AttributeError, TypeError, ValueError):
        return None
    return found


def _parse_cell(value: Mapping[str, Any]) -> Reached:
    step, done = value.get("step"), value.get("done")
    if not isinstance(done, bool) or not (step is None or records.is_count(step)):
        raise ValueError(f"{value!r} is not what a cell reached")
    return Reached(step, done)


def merged(one: Progress, other: Progress) -> dict[str, dict[str, Reached]]:
    """The furthest of both, cell by cell."""
    result = {run_id: dict(cells) for run_id, cells in one.items()}
    for run_id, cells in other.items():
        known = result.setdefault(run_id, {})
        for cell, reached in cells.items():
            known[cell] = known.get(cell, Reached()).furthest(reached)
    return result


def of_status(runs: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Reached]]:
    """From the ``runs`` of a supervisor's status, a stranger's word: what cannot be read is left out."""
    found: dict[str, dict[str, Reached]] = {}
    for run in runs:
        with contextlib.suppress(AttributeError, TypeError):
            found = merged(found, parse({run.get("run_id"): _cells_of(run)}) or {})
    return found


def _cells_of(run: Mapping[str, Any]) -> dict[Any, dict[str, Any]]:
    return {
        cell.get("cell"): {
            "step": (cell.get("last_checkpoint") or {}).get("step"),
            "done": cell.get("state") == "done",
        }
        for cell in run.get("cells") or []
    }


def _bounded(before: Progress, after: Progress, store: StateStore, identity: BoxIdentity) -> Progress:
    """``after`` without the runs and cells that a box names beyond what it can have; what was noted stays."""
    if len(after) > max(MOST_STRANGE_RUNS, len(before)):
        ours = _runs_on_record(store, identity)
        strange = [run_id for run_id in [*before, *(after.keys() - before.keys())] if run_id not in ours]
        left_out = set(strange[MOST_STRANGE_RUNS:]) - before.keys()
        after = {run_id: cells for run_id, cells in after.items() if run_id not in left_out}
    return {run_id: _bounded_cells(before.get(run_id, {}), cells) for run_id, cells in after.items()}


def _bounded_cells(before: Mapping[str, Reached], after: Mapping[str, Reached]) -> Mapping[str, Reached]:
    if len(after) <= MOST_CELLS:
        return after
    new = [cell for cell in after if cell not in before]
    left_out = set(new[max(0, MOST_CELLS - len(before)) :])
    return {cell: reached for cell, reached in after.items() if cell not in left_out}


def _runs_on_record(store: StateStore, identity: BoxIdentity) -> set[str]:
    """The runs that our journal and receipts know of the box; read only where a box names very many."""
    # Ansible compiles a collection's files anew in each process: an inventory reads this file and needs no journal.
    from .journal import Journal

    place = (identity.project, identity.box)
    lines = Journal(store).lines()
    told = {str(line.get("run_id")) for line in lines if (line.get("project"), line.get("box")) == place}
    paths = store.receipts_of_box(*place, identity.generation)
    return told | {os.path.basename(os.path.dirname(path)) for path in paths}


def note(store: StateStore, identity: BoxIdentity, progress: Progress) -> None:
    """Add to what is known of a box. A damaged record is replaced: then only this look is known."""
    path = store.contact_path(identity.project, identity.box, identity.generation)
    try:
        known = records.read_record_or_none(path, "contact") or {}
    except records.RecordError:
        known = {}
    same = known.get("provider_id") == identity.provider_id
    before = (parse(known.get("runs")) or {}) if same else {}
    after = _bounded(before, merged(before, progress), store, identity)
    if same and after == before:
        return
    runs = {run_id: {cell: reached.as_dict() for cell, reached in cells.items()} for run_id, cells in after.items()}
    records.write_record(path, "contact", dict(identity.as_dict(), at=records.utc_now(), runs=runs))
