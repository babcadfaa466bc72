# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How far the runs of a box were last known to be: what would be missed if the box never came back.

``{run: {cell: {step, done, unnamed}}}``, ``unnamed`` only where there are such checkpoints. Every look at a box adds to
it and none takes away, so that a box that is lost after a look is lost with its progress known. The names are the box's
own words, so there is an end to them: what we know of the box from elsewhere is always noted, of other runs, cells and
names only so many.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from typing import Any, Iterable, Mapping

from .box import records
from .box.names import UnsafeName, check_name, check_relative_path
from .box.step_name import without_numbers
from .state_store import BoxIdentity, StateStore

_SHOWN = 3
# Runs that no record of ours names, and cells of one run. A sweep of ten thousand cells is spread over many runs.
MOST_STRANGE_RUNS = 256
MOST_CELLS = 10_000
# Different names of checkpoints in one cell, with their numbers as ``*``.
MOST_UNNAMED = 100


@dataclass(frozen=True)
class Reached:
    """``step`` is the highest that the name of a checkpoint says, None without any; ``done`` is a finished cell.

    ``unnamed`` are checkpoints whose names say no step, their numbers as ``*``: how far those got nobody can say.
    Steps inside files are not told here: a box is asked for names only, and an epoch in a name is no step in a file.
    """

    step: int | None = None
    done: bool = False
    unnamed: tuple[str, ...] = ()

    def at_least(self, other: Reached) -> bool:
        """Whether surely nothing of ``other`` is beyond this.

        A checkpoint whose name says no step may always be, until its cell is finished on both sides: it is its result.
        """
        return (not other.unnamed or (self.done and other.done)) and self._is_as_far(other)

    def includes(self, other: Reached) -> bool:
        """Whether all that ``other`` names is named here too."""
        return set(other.unnamed) <= set(self.unnamed) and self._is_as_far(other)

    def _is_as_far(self, other: Reached) -> bool:
        return (self.done or not other.done) and _number(self.step) >= _number(other.step)

    def furthest(self, other: Reached) -> Reached:
        steps = [step for step in (self.step, other.step) if step is not None]
        unnamed = tuple(sorted({*self.unnamed, *other.unnamed}))
        return Reached(max(steps, default=None), self.done or other.done, unnamed)

    def unnamed_words(self) -> str:
        """The checkpoints of which nobody can say how far they got; empty without any."""
        if not self.unnamed:
            return ""
        more = f" and {len(self.unnamed) - _SHOWN} more" if len(self.unnamed) > _SHOWN else ""
        return f"{', '.join(self.unnamed[:_SHOWN])}{more} (the name says no step, so nobody can say how far it got)"

    def __str__(self) -> str:
        step = "" if self.step is None else f"step {self.step}"
        told = [word for word in ("finished" if self.done else step, self.unnamed_words()) if word]
        return " and ".join(told) or "no checkpoint"

    def as_dict(self) -> dict[str, Any]:
        unnamed = {"unnamed": list(self.unnamed)} if self.unnamed else {}
        return {"step": self.step, "done": self.done, **unnamed}


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
    step, done, unnamed = value.get("step"), value.get("done"), value.get("unnamed", [])
    if not isinstance(done, bool) or not (step is None or records.is_count(step)) or not isinstance(unnamed, list):
        raise ValueError(f"{value!r} is not what a cell reached")
    return Reached(step, done, tuple(sorted({check_relative_path(name) for name in unnamed})))


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
        cell.get("cell"): {**_of_checkpoint(cell.get("last_checkpoint") or {}), "done": cell.get("state") == "done"}
        for cell in run.get("cells") or []
    }


def _of_checkpoint(newest: Mapping[str, Any]) -> dict[str, Any]:
    step, path = newest.get("step"), newest.get("path")
    if step is not None or path is None:
        return {"step": step}
    # The path is that in the run's folder: <cell>/a<n>/out/<name>.
    return {"step": None, "unnamed": [without_numbers(str(path).partition("/out/")[2])]}


def _bounded(before: Progress, after: Progress, store: StateStore, identity: BoxIdentity) -> Progress:
    """``after`` without the runs and cells that a box names beyond what it can have; what was noted stays."""
    if len(after) > max(MOST_STRANGE_RUNS, len(before)):
        ours = _runs_on_record(store, identity)
        strange = [run_id for run_id in [*before, *(after.keys() - before.keys())] if run_id not in ours]
        left_out = set(strange[MOST_STRANGE_RUNS:]) - before.keys()
        after = {run_id: cells for run_id, cells in after.items() if run_id not in left_out}
    return {run_id: _bounded_cells(before.get(run_id, {}), cells) for run_id, cells in after.items()}


def _bounded_cells(before: Mapping[str, Reached], after: Mapping[str, Reached]) -> Mapping[str, Reached]:
    new = [cell for cell in after if cell not in before]
    left_out = set(new[max(0, MOST_CELLS - len(before)) :]) if len(after) > MOST_CELLS else set()
    return {
        cell: _bounded_names(before.get(cell, Reached()), reached)
        for cell, reached in after.items()
        if cell not in left_out
    }


def _bounded_names(before: Reached, after: Reached) -> Reached:
    """Where there are very many already, one name more says nothing more: nobody can say how far any of them got."""
    if len(after.unnamed) <= MOST_UNNAMED:
        return after
    new = [name for name in after.unnamed if name not in before.unnamed]
    left_out = set(new[max(0, MOST_UNNAMED - len(before.unnamed)) :])
    return replace(after, unnamed=tuple(name for name in after.unnamed if name not in left_out))


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
