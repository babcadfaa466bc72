# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The tasks of a job array as one: which of them live, wait or are over, and one answer for the status of the box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Collection

from . import array, attempt, health, judge, slurm_job, survey
from .layout import Layout
from .refusal import Refused

# What is told of several tasks is the first of these that one of them means.
_ORDER = (
    slurm_job.LIVES,
    slurm_job.WAITS,
    slurm_job.REFUSED,
    slurm_job.GOES_ON,
    slurm_job.UNKNOWN,
    slurm_job.ENDED,
)
_NAMED = 5


@dataclass(frozen=True)
class Member:
    """One task, its supervisor, and what Slurm says of it; ``job`` is None where it has forgotten it."""

    task: array.Task
    supervised: bool
    job: slurm_job.Job | None
    begins: bool = False
    why: str = ""

    @property
    def meaning(self) -> str:
        if self.supervised:
            return slurm_job.LIVES
        return self.job.meaning if self.job else slurm_job.UNKNOWN

    @property
    def covers(self) -> bool:
        """Whether its cells are in good hands: at work, about to be, waiting for their turn; or nobody can say, for
        Slurm does not answer."""
        asked = self.job is not None or not self.why
        return self.supervised or self.begins or self.meaning == slurm_job.WAITS or not asked

    def as_dict(self) -> dict[str, Any]:
        known = slurm_job.as_dict(self.job) if self.job else {"job": self.task.job, "state": "", "why": self.why}
        cells = [f"{run_id}/{cell}" for run_id, cell in self.task.cells]
        return {**known, "share": self.task.share, "meaning": self.meaning, "begins": self.begins, "cells": cells}


def look(layout: Layout, cells: Collection[tuple[str, str]] | None = None) -> list[Member]:
    """The tasks that own a cell, as they are now. :param cells: only those that own one of these."""
    wanted = [task for task in array.tasks(layout) if cells is None or any(cell in cells for cell in task.cells)]
    jobs: dict[str, slurm_job.Job] = {}
    why: dict[str, str] = {}
    for array_id in sorted({task.array for task in wanted if task.array}):
        try:
            told = slurm_job.look_array(array_id, [task.number for task in wanted if task.array == array_id])
        except Refused as refused:
            why[array_id] = refused.what
            continue
        jobs.update({job.job_id: job for job in told.values()})
    return [_member(layout, task, jobs.get(task.job), why.get(task.array, "")) for task in wanted]


def _member(layout: Layout, task: array.Task, job: slurm_job.Job | None, why: str) -> Member:
    told = survey.read_one_daemon(layout.of_share(task.share))
    supervised = bool(told["alive"])
    begins = job is not None and job.meaning == slurm_job.LIVES and not supervised and told.get("job") != job.label
    return Member(task, supervised, job, begins, why and f"Slurm job {task.job}: {why}")


def unfinished(found: survey.Survey, run_id: str | None = None) -> list[tuple[str, str]]:
    """The cells that somebody has to work at, and that may be worked at."""
    chosen = [cell for cell in found.cells if run_id in (None, cell.run_id) and found.orders.may_run(cell.run_id)]
    return [(cell.run_id, cell.cell) for cell in chosen if judge.judge_cell(cell).next != judge.NOTHING]


def uncovered(layout: Layout, found: survey.Survey) -> list[tuple[str, str]]:
    """The cells that nobody will ever work at unless a task is handed in for them."""
    cells = unfinished(found)
    covered = {cell for member in look(layout, cells) if member.covers for cell in member.task.cells}
    return [cell for cell in cells if cell not in covered]


def waits(layout: Layout) -> str:
    """The first task that waits for its turn, or has it and no supervisor yet; empty where none does."""
    members = look(layout)
    return next((each.task.job for each in members if each.begins or each.meaning == slurm_job.WAITS), "")


# --- for the status -------------------------------------------------------------------------------------------------


def of_status(layout: Layout, found: survey.Survey) -> dict[str, Any] | None:
    """One answer for all tasks that have something left to do, and each of them; None where no array was handed in.

    ``meaning`` is that of the liveliest, ``why`` says how many there are of each.
    """
    if not array.tasks(layout):
        return None
    left = [(cell.run_id, cell.cell) for cell in found.cells if judge.judge_cell(cell).next != judge.NOTHING]
    members = look(layout, left)
    shown = [member.as_dict() for member in members]
    told = min(shown, key=lambda one: _ORDER.index(one["meaning"]), default=None)
    arrays = sorted({task.array for task in array.tasks(layout) if task.array}, key=int)
    limits = [one["left_s"] for one in shown if one.get("left_s") is not None]
    return {
        "job": ",".join(arrays),
        "state": told["state"] if told else "COMPLETED",
        "meaning": told["meaning"] if told else slurm_job.ENDED,
        "why": _in_a_sentence(shown),
        "left_s": min(limits, default=None),
        "restarts": sum(int(one.get("restarts") or 0) for one in shown),
        "tasks": shown,
    }


def _in_a_sentence(shown: list[dict[str, Any]]) -> str:
    if not shown:
        return "every task of the array has done its share"
    words = [str(one["why"]) for one in shown if one["meaning"] != slurm_job.LIVES and one["why"]]
    lives = sum(1 for one in shown if one["meaning"] == slurm_job.LIVES)
    more = f"; and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    return f"{lives} of {len(shown)} tasks with work left are at work{': ' if words else ''}" + (
        "; ".join(words[:_NAMED]) + more
    )


def health_of(layout: Layout) -> dict[str, Any] | None:
    """The newest sample of any machine, with the warnings of all of them."""
    samples = []
    for task in array.tasks(layout):
        own = layout.of_share(task.share)
        if attempt.read(own.health, "health"):
            sample = health.read(own, bool(survey.read_one_daemon(own)["alive"]))
            samples.append((task, sample))
    told = [f"task {task.share}: {each}" for task, sample in samples if sample for each in sample["warnings"]]
    newest = max((sample for _task, sample in samples if sample), key=lambda one: str(one["at"]), default=None)
    return dict(newest, warnings=told) if newest else None
