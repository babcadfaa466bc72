# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Cells of one box as a job array: who works at which cell. Each hand-in is a *turn*, each task of it has a share of
the cells, and the last turn that names a cell owns it: that is what fences a task which comes back to life.

The record is written before anything is handed in, so a task finds its share whenever it begins.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any, Iterable, Sequence

from . import cell_split, records, slurm_job
from .layout import Layout
from .refusal import USAGE, Refused
from .tool import run_tool

ARRAY_JOB, ARRAY_TASK = "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"
_MAX_SIZE = re.compile(r"^MaxArraySize\s*=\s*([0-9]+)", re.MULTILINE)


@dataclass(frozen=True)
class Task:
    """One task of a hand-in. ``array`` is the id of its array, empty where the answer to the hand-in was lost.

    ``cells`` are those that it still owns.
    """

    turn: int
    number: int
    array: str
    cells: tuple[tuple[str, str], ...]

    @property
    def share(self) -> str:
        return f"{self.turn}-{self.number}"

    @property
    def job(self) -> str:
        """As Slurm names it."""
        return f"{self.array}_{self.number}" if self.array else ""


def read(layout: Layout) -> dict[str, Any]:
    """``{turn, handed: {turn: {job, shares}}}``; without turns where nothing was handed in as an array.

    :raises RecordError: nobody can say any more who owns what.
    """
    record = records.read_record_or_none(layout.array, "array")
    if record is None:
        return {"turn": 0, "handed": {}}
    if not _is_usable(record):
        raise records.RecordError(f"{layout.array} has no readable turns and shares")
    return record


def _is_usable(record: dict[str, Any]) -> bool:
    handed = record.get("handed")
    if not records.is_count(record.get("turn")) or not isinstance(handed, dict):
        return False
    for turn, each in handed.items():
        shares = each.get("shares") if isinstance(each, dict) else None
        if not str(turn).isdigit() or not isinstance(shares, list) or not isinstance(each.get("job"), str):
            return False
        cells = [cell for share in shares for cell in (share if isinstance(share, list) else [None])]
        if not all(isinstance(cell, list) and len(cell) == 2 for cell in cells):
            return False
    return True


def tasks(layout: Layout) -> list[Task]:
    """Every task that still owns a cell, by turn and number."""
    return tasks_in(read(layout))


def tasks_in(record: dict[str, Any]) -> list[Task]:
    owner: dict[tuple[str, str], tuple[int, int]] = {}
    turns = sorted(record["handed"], key=int)
    for turn in turns:
        for number, share in enumerate(record["handed"][turn]["shares"]):
            owner.update({(str(run), str(cell)): (int(turn), number) for run, cell in share})
    found = []
    for turn in turns:
        for number, share in enumerate(record["handed"][turn]["shares"]):
            own = tuple((run, cell) for run, cell in share if owner[run, cell] == (int(turn), number))
            if own:
                found.append(Task(int(turn), number, record["handed"][turn]["job"], own))
    return found


def owned(layout: Layout) -> frozenset[tuple[str, str]]:
    """The cells of the task whose layout this is. None of them once a later turn has taken them, nor where the record
    says that its turn is another array: two controllers may have handed one in at once."""
    if not layout.share:
        raise ValueError("only a task of an array owns a share")
    mine = next((task for task in tasks(layout) if task.share == layout.share), None)
    if mine is None or (mine.array and own_array() not in ("", mine.array)):
        return frozenset()
    return frozenset(mine.cells)


def own_array() -> str:
    return os.environ.get(ARRAY_JOB, "")


# --- handing in -----------------------------------------------------------------------------------------------------


def split(cells: Sequence[tuple[str, str]], count: int) -> list[list[tuple[str, str]]]:
    """At most ``count`` shares, level in number, none of them empty."""
    names = [f"{number:09}" for number in range(min(count, len(cells)))]
    # By place: a cell of one name may be in two runs.
    shared = cell_split.split_cells([f"{place:09}" for place in range(len(cells))], names)
    return [[cells[int(place)] for place in shared[name]] for name in names]


def refuse_too_many(count: int) -> None:
    """Refused(USAGE) when this Slurm takes no array of so many tasks. Asked of it, for every site has another limit."""
    told = _MAX_SIZE.search(run_tool(["scontrol", "show", "config"], "tell its limits"))
    most = int(told.group(1)) if told else None
    if most is not None and count > most:
        fix = f"set array_tasks to {most} or less: a task may train several cells" if most else "leave array_tasks out"
        raise Refused(USAGE, f"this Slurm takes no array of {count} tasks: its MaxArraySize is {most}", fix)


def begin(layout: Layout, shares: Iterable[Sequence[tuple[str, str]]]) -> int:
    """Note the shares of a hand-in before it is made; its turn. Turns that own nothing any more are dropped."""
    record = read(layout)
    turn = int(record["turn"]) + 1
    handed = {**record["handed"], str(turn): {"job": "", "shares": [[list(cell) for cell in one] for one in shares]}}
    kept = {str(task.turn) for task in tasks_in({"turn": turn, "handed": handed})}
    _write(layout, turn, {name: each for name, each in handed.items() if name in kept})
    for number in range(len(handed[str(turn)]["shares"])):
        os.makedirs(layout.of_share(f"{turn}-{number}").own, mode=0o700, exist_ok=True)
    return turn


def handed_in(layout: Layout, turn: int, job: str) -> None:
    """Note which array a turn is."""
    record = read(layout)
    handed = dict(record["handed"])
    if str(turn) in handed and handed[str(turn)]["job"] != job:
        handed[str(turn)] = dict(handed[str(turn)], job=job)
        _write(layout, record["turn"], handed)


def retire(layout: Layout) -> None:
    """One supervisor takes all cells: no task owns any."""
    record = read(layout)
    if record["handed"]:
        _write(layout, record["turn"], {})


def _write(layout: Layout, turn: int, handed: dict[str, Any]) -> None:
    records.write_record(layout.array, "array", {"turn": turn, "handed": handed, "written_at": records.utc_now()})


def unanswered(layout: Layout) -> int:
    """The turn whose hand-in nobody heard the answer of; 0 when there is none."""
    record = read(layout)
    return next((int(turn) for turn in record["handed"] if not record["handed"][turn]["job"]), 0)


def find_unanswered(layout: Layout, name: str) -> None:
    """Look up an array whose id got lost on its way, by the name of the job: else it would be handed in twice."""
    turn = unanswered(layout)
    if not turn:
        return
    known = {each["job"] for each in read(layout)["handed"].values()}
    there = [job for job in slurm_job.arrays_named(name) if job not in known]
    if there:
        handed_in(layout, turn, max(there, key=int))
