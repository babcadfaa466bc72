# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The supervisor as a batch job of Slurm: handed in once, found again by its name, put back into the queue, cancelled.

The box is the login node then, and the job works on another machine: both see the same files, and neither sees the
other's processes. So what lives is asked of Slurm (:mod:`slurm_job`).
"""

from __future__ import annotations

import os
import shlex
from typing import Any, Sequence

from . import array, attempt, process, records, slurm_job
from .layout import Layout
from .refusal import Refused
from .tool import run_tool

_WAITING = "--states=PENDING,CONFIGURING,REQUEUED,REQUEUE_FED,REQUEUE_HOLD,SPECIAL_EXIT,RESV_DEL_HOLD"
_MISSING = "choose another way to detach, for instance setsid"
# One job at a time for each tenant root, whoever else hands one in: Slurm's own fence, by name and user.
_SINGLETON = "singleton"


def command(
    argv: list[str],
    name: str,
    log: str,
    options: Sequence[str],
    grace_s: float,
    turn: int = 0,
    tasks: str = "",
    alone: bool = True,
) -> list[str]:
    """The sbatch command. :param options: words for sbatch; where they name a signal or a dependency, they are heard.

    :param grace_s: what the trainers need to save.
    :param tasks: of an array, as ``0-7%2``; each is told its share of this ``turn``, and ``log`` has ``%a`` in it.
    :param alone: whether nothing of this name may work meanwhile; tasks of one array may, beside each other.
    """
    notice = min(slurm_job.MOST_NOTICE_S, max(slurm_job.LEAST_NOTICE_S, int(grace_s) + slurm_job.NOTICE_MARGIN_S))
    job = ["--parsable", f"--job-name={name}", f"--output={log}", "--open-mode=append", "--requeue", "--chdir=/"]
    words = list(options)
    if not any(word.startswith("--signal=") for word in words):
        job.append(f"--signal=B:TERM@{notice}")
    waits_for = [word.partition("=")[2] for word in words if word.startswith("--dependency=")]
    words = [word for word in words if not word.startswith("--dependency=")]
    waits_for += [_SINGLETON] if alone else []
    job += [f"--dependency={','.join(waits_for)}"] if waits_for else []
    job += [f"--array={tasks}"] if tasks else []
    # srun takes the cpus of a task from this variable only (since 22.05): for trainers that call it.
    cpus = '[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"'
    share = f' --share {turn}-"${array.ARRAY_TASK}"' if tasks else ""
    return ["sbatch", *job, *words, "--wrap", f"{cpus}; exec env {process.OF_SLURM}=1 {shlex.join(argv)}{share}"]


def submit(root: str, words: list[str]) -> str:
    """Hand the job in; its id. The record is written before anybody waits for it.

    :raises Refused: SYSTEM, in Slurm's words.
    """
    job_id = run_tool(words, "hand in the job", _MISSING).strip().split("\n")[-1].partition(";")[0]
    note(Layout(root), job_id)
    return job_id


def note(layout: Layout, job_id: str) -> None:
    if attempt.read(layout.batch, "batch").get("job") != job_id:
        records.write_record(layout.batch, "batch", {"job": job_id, "submitted_at": records.utc_now()})


def waiting_job(name: str) -> str:
    """The id of the job of this name that waits for its turn; empty when none does."""
    words = ["squeue", "--noheader", "--me", _WAITING, f"--name={name}", "--format=%A"]
    return next(iter(run_tool(words, "say what waits", _MISSING).split()), "")


def coming_job(layout: Layout, life: str) -> str:
    """The id of the job that was handed in last, if it waits for its turn, or has it and its supervisor is to come.

    A job that is queued again ends first and waits then, and :func:`waiting_job` finds it only once it waits. What that
    missed because it was ending is here whatever became of it since.

    :param life: of the job that the last supervisor belonged to.
    """
    job_id = str(attempt.read(layout.batch, "batch").get("job") or "")
    job = slurm_job.look(job_id) if job_id else None
    if job is None:
        return ""
    begins = job.meaning == slurm_job.LIVES and job.label != life
    return job_id if begins or job.meaning == slurm_job.WAITS else ""


def cancel_all(name: str) -> None:
    """End every job of this name, and what waits under it."""
    run_tool(["scancel", "--me", f"--name={name}"], "cancel the job", _MISSING)


def cancel_waiting(name: str) -> None:
    """End what waits under this name; what works goes on, to leave by itself."""
    run_tool(["scancel", "--me", f"--name={name}", "--state=PENDING"], "cancel what waits", _MISSING)


def requeue() -> str:
    """Put the job that this supervisor is back into the queue; why not, empty when it is done."""
    job_id = process.job_name()
    if process.OF_SLURM not in os.environ or not job_id:
        return "it is no batch job of ours"
    try:
        said = run_tool(["squeue", "--noheader", f"--jobs={job_id}", "--format=%T"], "say how the job is")
        state = slurm_job.state_word(said)
        if state != "RUNNING":
            # Who cancels a job does not want it back; what Slurm itself took back needs no help.
            return f"the job is {state or 'gone'}"
        run_tool(["scontrol", "requeue", job_id], "queue the job again")
    except Refused as refused:
        return refused.what
    return ""


def look(layout: Layout) -> dict[str, Any] | None:
    """The job that was handed in last, as Slurm knows it now; None for a box whose supervisor is no batch job.

    ``meaning`` is ``unknown`` where Slurm cannot be asked or has forgotten the job.
    """
    job_id = str(attempt.read(layout.batch, "batch").get("job") or "")
    if not job_id:
        return None
    why = "Slurm has forgotten it"
    try:
        job = slurm_job.look(job_id)
    except Refused as refused:
        job, why = None, refused.what
    if job is not None:
        return slurm_job.as_dict(job)
    return {"job": job_id, "state": "", "meaning": slurm_job.UNKNOWN, "why": f"Slurm job {job_id}: {why}"}
