# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How far the runs of a box were last known to be: what would be missed if the box never came back.

``{run: {cell: {step, done, work, series, unnamed}}}``, the last three only where there are any. What an earlier work of
a cell left (its arguments or the code were others) is a cell of its own, ``<cell>@<work>``: a look that finds another
work in a cell moves there what was known of the one before. Every look at a box adds to it and none takes away, so that
a box that is lost after a look is lost with its progress known. The names are the box's own words, so there is an end
to them: what we know of the box from elsewhere is always noted, of other runs, cells and names only so many.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, field, replace
from typing import Any, Iterable, Mapping

from .box import reach, records
from .box.names import UnsafeName, check_name, check_relative_path
from .box.step_name import series_of
from .state_store import BoxIdentity, StateStore

_SHOWN = 3
_WORK_SHOWN = 12
_WORK = re.compile(r"[0-9a-f]{12}\Z")
# A look is noted in milliseconds: whoever has the lock for longer hangs.
_NOTED_WITHIN_S = 30.0
# Runs that no record of ours names, and cells of one run. A sweep of ten thousand cells is spread over many runs.
MOST_STRANGE_RUNS = 256
MOST_CELLS = 10_000
# Different names of checkpoints in one cell, with their numbers as ``*``: those without a step, and those with one. Of
# these each fold has its own, and the folder of one Trainer has a dozen.
MOST_UNNAMED = 100
MOST_SERIES = 500


def cell_of_work(cell: str, config_sha256: str) -> str:
    """What an earlier work of a cell is told as."""
    return f"{cell}@{config_sha256[:_WORK_SHOWN]}"


def work_shown(config_sha256: object) -> str:
    """The work as :class:`Reached` has it; empty for what is no hash."""
    shown = str(config_sha256)[:_WORK_SHOWN]
    return shown if _WORK.match(shown) else ""


@dataclass(frozen=True)
class Reached:
    """``step`` is the highest that the name of a checkpoint says, None without any; ``done`` is a finished cell.

    ``unnamed`` are checkpoints whose names say no step, their numbers as ``*``: how far those got nobody can say.
    Steps inside files are not told here: a box is asked for names only, and an epoch in a name is no step in a file.

    ``series`` are ``(name, step, files)`` as ``reach`` has them. Where none has ``step``, whoever looked (an earlier
    version) did not say what belongs to that, and nobody can say whether all of it is anywhere else.

    ``work`` is the beginning of the cell's ``config_sha256``, empty where nobody said it: whose progress this is, which
    says nothing of how far it is.
    """

    step: int | None = None
    done: bool = False
    unnamed: tuple[str, ...] = ()
    series: tuple[reach.Series, ...] = ()
    work: str = field(default="", compare=False)

    def at_least(self, other: Reached) -> bool:
        """Whether surely nothing of ``other`` is beyond this.

        A checkpoint whose name says no step may always be, until its cell is finished on both sides: it is its result.
        Of the steps before its result a finished cell has kept what its done record promises, and all that is here.
        """
        wanted = replace(other, series=()) if other.done else other
        return (other.done or not other.unnamed) and other.is_told and self.includes(wanted)

    @property
    def is_told(self) -> bool:
        """Whether it is known which files its highest step has."""
        return self.step is None or any(step == self.step for _name, step, _files in self.series)

    def includes(self, other: Reached) -> bool:
        """Whether all that ``other`` names is named here too."""
        named = set(other.unnamed) <= set(self.unnamed)
        as_far = (self.done or not other.done) and _number(self.step) >= _number(other.step)
        return named and as_far and all(self._has(each) for each in other.series)

    def _has(self, wanted: reach.Series) -> bool:
        return any(reach.covers(own, wanted) for own in self.series)

    def furthest(self, other: Reached) -> Reached:
        steps = [step for step in (self.step, other.step) if step is not None]
        unnamed = tuple(sorted({*self.unnamed, *other.unnamed}))
        series = reach.furthest([*self.series, *other.series])
        return Reached(max(steps, default=None), self.done or other.done, unnamed, series)

    def unnamed_words(self) -> str:
        """The checkpoints of which nobody can say how far they got; empty without any."""
        if not self.unnamed:
            return ""
        more = f" and {len(self.unnamed) - _SHOWN} more" if len(self.unnamed) > _SHOWN else ""
        return f"{', '.join(self.unnamed[:_SHOWN])}{more} (the name says no step, so nobody can say how far it got)"

    def series_words(self, beside: Reached) -> str:
        """What of a step that ``beside`` has too is not there; empty when nothing is."""
        if not self.is_told:
            return f"all files of step {self.step} (an earlier version looked, which did not note their names)"
        if self.done and beside.done:
            return ""
        beyond = [each for each in self.series if each[1] <= _number(beside.step) and not beside._has(each)]
        told = [reach.words(each) for each in beyond]
        more = f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
        return ", ".join(told[:_SHOWN]) + more

    def __str__(self) -> str:
        step = "" if self.step is None else f"step {self.step}"
        told = [word for word in ("finished" if self.done else step, self.unnamed_words()) if word]
        return " and ".join(told) or "no checkpoint"

    def as_dict(self) -> dict[str, Any]:
        listed: dict[str, list[list[int]]] = {}
        for name, step, files in self.series:
            listed.setdefault(name, []).append([step, files])
        series = {"series": listed} if listed else {}
        unnamed = {"unnamed": list(self.unnamed)} if self.unnamed else {}
        work = {"work": self.work} if self.work else {}
        return {"step": self.step, "done": self.done, **work, **series, **unnamed}


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
            found[check_name("run", run_id)] = {_check_cell(cell): parse_cell(value) for cell, value in cells.items()}
    except (UnsafeName, AttributeError, TypeError, ValueError):
        return None
    return found


def _check_cell(name: Any) -> str:
    cell, mark, work = name.partition("@")
    check_name("cell", cell)
    if mark and not _WORK.match(work):
        raise UnsafeName(f"{name!r} names no work of a cell")
    return str(name)


def parse_cell(value: Mapping[str, Any]) -> Reached:
    """What :meth:`Reached.as_dict` gave. ValueError, TypeError or AttributeError for anything else."""
    step, done, unnamed = value.get("step"), value.get("done"), value.get("unnamed", [])
    if not isinstance(done, bool) or not (step is None or records.is_count(step)) or not isinstance(unnamed, list):
        raise ValueError(f"{value!r} is not what a cell reached")
    names = tuple(sorted({check_relative_path(name) for name in unnamed}))
    return Reached(step, done, names, _parse_series(value.get("series", {})), work_shown(value.get("work")))


def _parse_series(value: Mapping[str, Any]) -> tuple[reach.Series, ...]:
    found = []
    for name, steps in value.items():
        check_relative_path(reach.name_of_files(name))
        for step, files in steps:
            if not (records.is_count(step) and records.is_count(files)):
                raise ValueError(f"{name!r} has no step, or nobody knows of how many files")
            found.append((name, step, files))
    return reach.furthest(found)


def merged(one: Progress, other: Progress) -> dict[str, dict[str, Reached]]:
    """The furthest of both, cell by cell. ``other`` is of the later look: its works are the present ones."""
    result = {run_id: dict(cells) for run_id, cells in one.items()}
    for run_id, cells in other.items():
        known = result.setdefault(run_id, {})
        for cell, reached in cells.items():
            _name_by_work(known, cell, reached.work)
        for cell, reached in cells.items():
            _add(known, cell, reached)
    return result


def _add(known: dict[str, Reached], cell: str, reached: Reached) -> None:
    before = known.get(cell, Reached())
    known[cell] = replace(before.furthest(reached), work=reached.work or before.work)


def _name_by_work(known: dict[str, Reached], cell: str, work: str) -> None:
    """What is known of a cell goes by the name of its own work, once ``work`` is the present one."""
    name, mark, earlier = cell.partition("@")
    if mark:
        _name_as_earlier(known, name, earlier)
    elif work:
        _name_as_present(known, cell, work)


def _name_as_earlier(known: dict[str, Reached], cell: str, work: str) -> None:
    """The later look says that ``work`` is an earlier one: the spec may have the cell no more, and names no other."""
    if known.get(cell, Reached()).work == work:
        _add(known, cell_of_work(cell, work), replace(known.pop(cell), work=""))


def _name_as_present(known: dict[str, Reached], cell: str, work: str) -> None:
    before = known.get(cell, Reached()).work
    # Where there is no room for one name more, what is known of the cell stays known of it.
    if before and before != work and len(known) < MOST_CELLS:
        _add(known, cell_of_work(cell, before), replace(known[cell], work=""))
        known[cell] = Reached(work=work)
    again = known.pop(cell_of_work(cell, work), None)
    if again is not None:
        _add(known, cell, replace(again, work=work))


def of_status(runs: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Reached]]:
    """From the ``runs`` of a supervisor's status, a stranger's word: what cannot be read is left out."""
    found: dict[str, dict[str, Reached]] = {}
    for run in runs:
        with contextlib.suppress(AttributeError, TypeError):
            found = merged(found, parse({run.get("run_id"): _cells_of(run)}) or {})
    return found


def _cells_of(run: Mapping[str, Any]) -> dict[Any, dict[str, Any]]:
    return {cell.get("cell"): _of_cell(cell) for cell in run.get("cells") or []}


def _of_cell(cell: Mapping[str, Any]) -> dict[str, Any]:
    done, work = cell.get("state") == "done", cell.get("config_sha256")
    return {**_of_checkpoint(cell.get("last_checkpoint") or {}), "done": done, "work": work}


def _of_checkpoint(newest: Mapping[str, Any]) -> dict[str, Any]:
    step, path = newest.get("step"), newest.get("path")
    if step is not None or path is None:
        return {"step": step, "series": newest.get("series") or {}}
    # The path is that in the run's folder: <cell>/a<n>/out/<name>.
    return {"step": None, "unnamed": [series_of(str(path).partition("/out/")[2])]}


def _bounded(before: Progress, after: Progress, store: StateStore, identity: BoxIdentity) -> Progress:
    """``after`` without the runs and cells that a box names beyond what it can have; what was noted stays."""
    if len(after) > max(MOST_STRANGE_RUNS, len(before)):
        ours = _runs_on_record(store, identity)
        strange = [run_id for run_id in [*before, *(after.keys() - before.keys())] if run_id not in ours]
        left_out = set(strange[MOST_STRANGE_RUNS:]) - before.keys()
        after = {run_id: cells for run_id, cells in after.items() if run_id not in left_out}
    return {run_id: _bounded_cells(before.get(run_id, {}), cells) for run_id, cells in after.items()}


def _bounded_cells(before: Mapping[str, Reached], after: Mapping[str, Reached]) -> Mapping[str, Reached]:
    # What was known by another name stands before the names that only this look brought, and is never left out.
    new = [cell for cell in after if cell not in before]
    room = max(MOST_CELLS, len(before)) - (len(after) - len(new))
    left_out = set(new[room:])
    return {
        cell: _bounded_names(before.get(cell, Reached()), reached)
        for cell, reached in after.items()
        if cell not in left_out
    }


def _bounded_names(before: Reached, after: Reached) -> Reached:
    """Where there are very many already, one name more says nothing more: nobody can say how far any of them got."""
    if len(after.series) > MOST_SERIES:
        # Nor can anybody say then what a step consists of.
        after = replace(after, series=())
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
    """Add to what is known of a box. A damaged record is replaced: then only this look is known.

    A watch and a harvest note looks at one box at once, so one at a time reads and writes.

    :raises TenantFailure: ``lease_held`` when another process has the record for too long.
    """
    # An inventory reads this file too, and notes nothing.
    from .file_locks import Lock, held

    path = store.contact_path(identity.project, identity.box, identity.generation)
    what = f"what is known of {identity.box} g{identity.generation} ({path})"
    with held(Lock(path[: -len(".json")] + ".lock", what, "The box was not touched", _NOTED_WITHIN_S)):
        _note(path, store, identity, progress)


def _note(path: str, store: StateStore, identity: BoxIdentity, progress: Progress) -> None:
    try:
        known = records.read_record_or_none(path, "contact") or {}
    except records.RecordError:
        known = {}
    same = known.get("provider_id") == identity.provider_id
    before = (parse(known.get("runs")) or {}) if same else {}
    after = _bounded(before, merged(before, progress), store, identity)
    runs = {run_id: {cell: reached.as_dict() for cell, reached in cells.items()} for run_id, cells in after.items()}
    if same and runs == known.get("runs"):
        return
    records.write_record(path, "contact", dict(identity.as_dict(), at=records.utc_now(), runs=runs))
