# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Who supervises this box now, who is about to, and starting whom it takes: one supervisor, or the tasks of a job array
with a share of the cells each.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from . import array, attempt, batch, crew, detach, locks, process, survey
from .layout import Layout
from .refusal import DEADLINE, HELD, USAGE, Refused


@dataclass(frozen=True)
class Means:
    """How a supervisor is started. ``array_tasks``: as an array of so many tasks at most, ``array_limit`` of which work
    at a time (0: all of them)."""

    method: str = "setsid"
    options: tuple[str, ...] = ()
    array_tasks: int = 0
    array_limit: int = 0


def lives(layout: Layout, check: bool) -> bool:
    """The lock decides, under the box lock: a supervisor about to leave gives it up before the box lock is ours."""
    if check:
        return bool(survey.read_daemon(layout)["alive"])
    return single_lives(layout) or bool(survey.read_daemon(layout)["alive"])


def single_lives(layout: Layout) -> bool:
    """Whether one supervisor has all cells, here or in a job."""
    told = survey.read_one_daemon(layout)
    try:
        # A status command may hold it shared for an instant on a box that never had a supervisor.
        within_s = 0.0 if told["pid"] else 1.0
        os.close(locks.lock_within(layout.daemon_lock, within_s, "the supervisor's lock"))
    except Refused as refused:
        if refused.code != HELD:
            raise
        return True
    # Not every shared file system lets its locks be seen here.
    return _is_of_another_machine(layout) and bool(told["alive"])


def _is_of_another_machine(layout: Layout) -> bool:
    """Whether the supervisor on record is a batch job that does not run here."""
    return process.is_elsewhere(process.identity_from(attempt.read(layout.daemon, "daemon").get("process")))


def works_elsewhere(layout: Layout) -> bool:
    """Whether a supervisor lives whose lock is not the box's own: a job on another machine, a task of an array."""
    if _is_of_another_machine(layout) and survey.read_one_daemon(layout)["alive"]:
        return True
    return any(survey.read_one_daemon(layout.of_share(task.share))["alive"] for task in array.tasks(layout))


def waiting_job(layout: Layout, method: str = "", check: bool = False) -> str:
    """The batch job of this box that waits for its turn, or has it and no supervisor yet; empty where none does."""
    if method != "sbatch" and not os.path.exists(layout.batch):
        return ""
    name = detach.unit_name(layout.root)
    if not check:
        array.find_unanswered(layout, name)
    if array.tasks(layout):
        # Tasks of earlier turns may wait still: they own nothing, and leave as soon as they have their turn.
        return crew.waits(layout)
    waits = batch.waiting_job(name)
    return waits or batch.coming_job(layout, str(survey.read_one_daemon(layout).get("job") or ""))


def start(layout: Layout, program: tuple[str, ...], means: Means) -> str:
    """Start one supervisor for all cells; RUNNING or PENDING."""
    array.retire(layout)
    argv = [*program, "--root", layout.root, "daemon"]

    def is_ready() -> bool:
        return bool(survey.read_one_daemon(layout)["alive"])

    return detach.start_daemon(argv, layout.root, layout.log, means.method, is_ready, means.options, _grace_s(layout))


def _grace_s(layout: Layout) -> float:
    return max([run["grace_s"] for run in survey.survey(layout).runs.values()], default=0.0)


# --- arrays ---------------------------------------------------------------------------------------------------------


def refuse_array(layout: Layout, means: Means, found: survey.Survey, cells: list[tuple[str, str]]) -> None:
    """Refused(USAGE) for an array that cannot be; before anything is written."""
    if means.method != "sbatch":
        raise Refused(USAGE, f"a job array was asked for, and the box detaches by {means.method}", "detach by sbatch")
    together = sorted({run_id for run_id, _cell in cells if found.runs[run_id]["nodes"]})
    if together:
        what = f"run {together[0]} trains one cell on several nodes: a job array gives each task cells of its own"
        raise Refused(USAGE, what, "leave array_tasks out")
    array.refuse_too_many(min(means.array_tasks, len(cells)))


def start_array(layout: Layout, program: tuple[str, ...], means: Means, cells: list[tuple[str, str]]) -> str:
    """Hand the cells in as one array; RUNNING or PENDING once Slurm says that a task has its turn, or waits for it."""
    # Beside the tasks of an earlier turn, which go on, this one need not wait for their end.
    alone = not any(member.covers for member in crew.look(layout))
    shares = array.split(cells, means.array_tasks)
    turn = array.begin(layout, shares)
    numbers = f"0-{len(shares) - 1}" + (f"%{means.array_limit}" if means.array_limit else "")
    argv = [*program, "--root", layout.root, "daemon"]
    log = layout.path("shares", f"{turn}-%a", os.path.basename(layout.log))
    name = detach.unit_name(layout.root)
    words = batch.command(argv, name, log, means.options, _grace_s(layout), turn, numbers, alone)
    array.handed_in(layout, turn, batch.submit(layout.root, words))
    return _await_first(layout, turn, set(cells))


def _await_first(layout: Layout, turn: int, cells: set[tuple[str, str]]) -> str:
    until = time.monotonic() + detach.READY_WITHIN_S
    while True:
        members = [member for member in crew.look(layout, cells) if member.task.turn == turn]
        if any(member.supervised for member in members):
            return detach.RUNNING
        if not any(member.begins for member in members):
            # None that waits either: their work was so short that it is over.
            return detach.PENDING if any(member.covers for member in members) else detach.RUNNING
        if time.monotonic() >= until:
            folder = layout.path("shares")
            what = f"no task of the array had its supervisor within {detach.READY_WITHIN_S:g} s"
            raise Refused(DEADLINE, what, f"read the logs in {folder}/{turn}-*")
        time.sleep(0.1)
