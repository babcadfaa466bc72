# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A job of Slurm: what its state means here, and what is told of it. ``scontrol`` knows a job until some minutes after
its end, ``sacct`` for ever where the site keeps accounts, which many do not.
"""

from __future__ import annotations

import math
import re
import signal
import time
from dataclasses import dataclass
from typing import Any, Iterable

from .refusal import Refused
from .tool import run_tool

# What there must be of a notice besides the trainer's own grace: for the job to put itself back into the queue.
NOTICE_MARGIN_S = 30
LEAST_NOTICE_S = 120
# What --signal takes.
MOST_NOTICE_S = 65535
WAITS, LIVES, GOES_ON, REFUSED, ENDED, UNKNOWN = "waits", "lives", "goes_on", "refused", "ended", "unknown"
# What each state means for the run: it waits its turn; it is at work; it was cut short and is continued by the next
# start; a person must do something first; it came to its end, and the supervisor's own records say how.
MEANING = {
    "PENDING": WAITS,
    "CONFIGURING": WAITS,
    "REQUEUED": WAITS,
    "REQUEUE_FED": WAITS,
    "REQUEUE_HOLD": WAITS,
    "SPECIAL_EXIT": WAITS,
    "RESV_DEL_HOLD": WAITS,
    "RUNNING": LIVES,
    "COMPLETING": LIVES,
    "STAGE_OUT": LIVES,
    "SIGNALING": LIVES,
    "RESIZING": LIVES,
    "SUSPENDED": LIVES,
    "STOPPED": LIVES,
    "TIMEOUT": GOES_ON,
    "PREEMPTED": GOES_ON,
    "NODE_FAIL": GOES_ON,
    "BOOT_FAIL": GOES_ON,
    "LAUNCH_FAILED": GOES_ON,
    "RECONFIG_FAIL": GOES_ON,
    "REVOKED": GOES_ON,
    "OUT_OF_MEMORY": REFUSED,
    "CANCELLED": REFUSED,
    "DEADLINE": REFUSED,
    "COMPLETED": ENDED,
    "FAILED": ENDED,
}
_SUSPENDED = ("SUSPENDED", "STOPPED")
_HELD = ("REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
_HELD_REASONS = ("JobHeldUser", "JobHeldAdmin", "JobHoldMaxRequeue", "launch_failed_requeued_held")
MEMORY_MARGIN = 1.2
_PAIR = re.compile(r"(?:^|\s)([A-Za-z][A-Za-z/:]*)=(\S*)")
_UNIT_KIB = {"": 1 / 1024, "K": 1, "M": 1024, "G": 1024**2, "T": 1024**3}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([KMGT]?)[nc]?\Z")
# A job, or a task of an array: 12, 12_3.
_TASK = re.compile(r"([0-9]+)_([0-9]+)\Z")
_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+)(?::([0-9]+))?)?\Z")
_SPAN = re.compile(r"(?:([0-9]+)-)?([0-9]+(?::[0-9]{1,2}){0,2})\Z")
# One answer serves the many processes of one look.
_FRESH_S = 2.0
_seen: dict[str, tuple[float, Job | None]] = {}
_seen_arrays: dict[str, tuple[float, dict[int, Job]]] = {}


@dataclass(frozen=True)
class Job:
    """What Slurm says of a job. ``max_rss_kib`` is 0 where nobody kept accounts of it."""

    job_id: str
    state: str
    reason: str = ""
    restarts: int = 0
    node: str = ""
    start: str = ""
    end: str = ""
    exit_code: str = ""
    memory: str = ""
    max_rss_kib: int = 0
    left_s: int | None = None

    @property
    def meaning(self) -> str:
        return MEANING.get(self.state, UNKNOWN)

    @property
    def label(self) -> str:
        """One life of the job: a requeue begins another one under the same id."""
        return f"{self.job_id}.{self.restarts}"


def state_word(text: str) -> str:
    """``CANCELLED`` of ``CANCELLED by 1000``, ``CANCELLED+`` or a lower case answer."""
    return re.split(r"[\s+]", text.strip().upper(), maxsplit=1)[0]


def parse_scontrol(text: str) -> Job | None:
    """The job in one line of ``scontrol --oneliner show job``; None when there is none in it."""
    told = _told(text.strip().split("\n", 1)[0])
    return _job_of(told, told["JobId"]) if told else None


def _told(line: str) -> dict[str, str]:
    """The pairs of one line; empty for a line that tells of no job."""
    told = dict(_PAIR.findall(line))
    return told if told.get("JobId") and told.get("JobState") else {}


def _job_of(told: dict[str, str], name: str) -> Job:
    memory = told.get("MinMemoryNode") or told.get("MinMemoryCPU") or ""
    reason = told.get("Reason", "")
    return Job(
        name,
        state_word(told["JobState"]),
        "" if reason in ("None", "(null)") else reason,
        int(told["Restarts"]) if told.get("Restarts", "").isdigit() else 0,
        _known(told.get("NodeList")),
        _known(told.get("StartTime")),
        _known(told.get("EndTime")),
        told.get("ExitCode", ""),
        "" if memory in ("0", "0M") else memory,
        left_s=_left_s(told),
    )


def _left_s(told: dict[str, str]) -> int | None:
    """Until the time limit of a job at work; None where there is none, or nobody says."""
    limit, run = span_s(told.get("TimeLimit", "")), span_s(told.get("RunTime", ""))
    lives = MEANING.get(state_word(told["JobState"])) == LIVES
    return max(0, limit - run) if lives and limit is not None and run is not None else None


def span_s(text: str) -> int | None:
    """Seconds of Slurm's ``[D-]HH:MM:SS``, ``[D-]HH:MM``, ``D-HH``, ``MM:SS`` or ``MM``; None for what is none."""
    match = _SPAN.match(text)
    if not match:
        return None
    days, parts = match.group(1), [int(each) for each in match.group(2).split(":")]
    if days is not None or len(parts) == 3:
        hours, minutes, seconds = (parts + [0, 0])[:3]
    else:
        hours, minutes, seconds = 0, parts[0], (parts + [0])[1]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def parse_sacct(job_id: str, text: str) -> Job | None:
    """The job in lines of ``State|ExitCode|MaxRSS|ReqMem``: the first is the job, the others are its steps."""
    rows = [line.split("|") for line in text.splitlines() if line.count("|") == 3]
    if not rows:
        return None
    most = max(size_kib(row[2]) for row in rows)
    return Job(job_id, state_word(rows[0][0]), exit_code=rows[0][1], memory=rows[0][3], max_rss_kib=most)


def _known(value: str | None) -> str:
    return "" if value in (None, "Unknown", "(null)", "None", "N/A") else str(value)


def size_kib(text: str) -> int:
    """Slurm's sizes, ``512M`` or ``16Gn``; 0 for what is none."""
    match = _SIZE.match(text.strip())
    return math.ceil(float(match.group(1)) * _UNIT_KIB[match.group(2)]) if match else 0


def look(job_id: str) -> Job | None:
    """What Slurm says of the job now; None when it has forgotten it, or keeps no accounts of it.

    :raises Refused: Slurm cannot be asked, which says nothing of the job.
    """
    found = parse_scontrol(_show(job_id))
    if found is None or found.state == "OUT_OF_MEMORY":
        return _accounted(job_id) or found
    return found


def _show(job_id: str) -> str:
    """Slurm's lines on a job; empty when it has forgotten it."""
    try:
        return run_tool(["scontrol", "--oneliner", "show", "job", job_id], "tell of the job")
    except Refused as refused:
        if "Invalid job id" not in refused.what:
            raise
        return ""


# --- arrays ----------------------------------------------------------------------------------------------------------


def parse_array(array_id: str, text: str) -> dict[int, Job]:
    """Every task in the lines of ``scontrol --oneliner show job``: those that wait stand in one line together, whose
    list Slurm may cut short; then it is of all that have no line of their own, which :func:`look_array` sees to."""
    found: dict[int, Job] = {}
    for told in filter(None, map(_told, text.splitlines())):
        for number in task_numbers(told.get("ArrayTaskId", "")) if told.get("ArrayJobId") == array_id else ():
            found[number] = _job_of(told, f"{array_id}_{number}")
    return found


def task_numbers(text: str) -> list[int]:
    """``0``, ``2-3%2``, ``1,4-6``, ``0-8:2``; what was cut short with dots is left out."""
    found: list[int] = []
    for part in text.partition("%")[0].split(","):
        match = _RANGE.match(part)
        if match:
            first, last, step = int(match.group(1)), int(match.group(2) or match.group(1)), int(match.group(3) or 1)
            found += range(first, last + 1, max(1, step))
    return found


def look_array(array_id: str, numbers: Iterable[int]) -> dict[int, Job]:
    """What Slurm says of these tasks of an array now; without those that it has forgotten.

    :raises Refused: Slurm cannot be asked, which says nothing of them.
    """
    wanted = list(numbers)
    text = _show(array_id)
    found = parse_array(array_id, text)
    cut = next((told for told in map(_told, text.splitlines()) if "..." in told.get("ArrayTaskId", "")), None)
    if cut:
        found = {**{number: _job_of(cut, f"{array_id}_{number}") for number in wanted}, **found}
    unclear = [number for number in wanted if number not in found or found[number].state == "OUT_OF_MEMORY"]
    for number in unclear:
        told = _accounted(f"{array_id}_{number}")
        if told is not None:
            found[number] = told
    return {number: found[number] for number in wanted if number in found}


def arrays_named(name: str) -> list[str]:
    """The ids of the arrays of this name that have not ended."""
    words = ["squeue", "--noheader", "--me", f"--name={name}", "--format=%F %K"]
    rows = [line.split() for line in run_tool(words, "say what there is").splitlines()]
    return sorted({row[0] for row in rows if len(row) == 2 and row[1] != "N/A"})


def _accounted(job_id: str) -> Job | None:
    fields = "--format=State,ExitCode,MaxRSS,ReqMem"
    try:
        return parse_sacct(job_id, run_tool(["sacct", "--noheader", "--parsable2", f"--jobs={job_id}", fields], "tell"))
    except Refused:
        # Accounting is off, or was never set up.
        return None


def sentence(job: Job) -> str:
    """Of a job that waits or was refused: what is the matter, and what to do."""
    name = f"Slurm job {job.job_id}"
    because = f" ({job.reason})" if job.reason else ""
    if job.state == "OUT_OF_MEMORY":
        return f"{name} is OUT_OF_MEMORY: {_memory_advice(job)}, then start it again with the train playbook"
    if job.meaning == REFUSED:
        who = "somebody ended it" if job.state == "CANCELLED" else "its deadline passed"
        return f"{name} is {job.state}{because}: {who}; start it again with the train playbook"
    if job.state in _HELD or job.reason in _HELD_REASONS:
        return f"{name} is held{because}: scontrol release {job.job_id} lets it go on"
    if job.state in _SUSPENDED:
        return f"{name} is {job.state}: Slurm lets it go on by itself"
    if job.meaning == WAITS:
        when = f", Slurm expects its start at {job.start}" if job.start else ""
        return f"{name} is {job.state}{because}{when}"
    node = f" on {job.node}" if job.node else ""
    return f"{name} is {job.state}{because}{node}"


def _memory_advice(job: Job) -> str:
    if job.max_rss_kib:
        return f"ask for mem: {math.ceil(job.max_rss_kib * MEMORY_MARGIN / 1024)}M (1.2 times its MaxRSS)"
    had = size_kib(job.memory)
    if had:
        return (
            f"ask for mem: {math.ceil(had * MEMORY_MARGIN / 1024)}M or more (it had {job.memory}, MaxRSS is not kept)"
        )
    return "ask for mem: 1.2 times what it needs (this Slurm kept no MaxRSS)"


# --- processes of a job, seen from another node ----------------------------------------------------------------------


def lives(label: str) -> bool:
    """Whether this life of a job goes on. Where Slurm cannot be asked it does, as far as anybody knows."""
    job_id, _dot, restarts = label.partition(".")
    try:
        job = _recent(job_id)
    except Refused:
        return True
    return job is not None and job.meaning == LIVES and str(job.restarts) == restarts


def _recent(job_id: str) -> Job | None:
    task = _TASK.match(job_id)
    if task:
        return _recent_array(task.group(1)).get(int(task.group(2)))
    known = _seen.get(job_id)
    if known is None or time.monotonic() - known[0] > _FRESH_S:
        known = _seen[job_id] = (time.monotonic(), look(job_id))
    return known[1]


def _recent_array(array_id: str) -> dict[int, Job]:
    """One answer for all tasks: a status asks for each process of each of them."""
    known = _seen_arrays.get(array_id)
    if known is None or time.monotonic() - known[0] > _FRESH_S:
        known = _seen_arrays[array_id] = (time.monotonic(), parse_array(array_id, _show(array_id)))
    return known[1]


def tell(label: str, number: int) -> bool:
    """Signal the supervisor that a job is, wherever it runs; SIGKILL ends the job. False when that life is over."""
    if not lives(label):
        return False
    job_id = label.partition(".")[0]
    how = [] if number == signal.SIGKILL else ["--batch", f"--signal={signal.Signals(number).name[3:]}"]
    try:
        run_tool(["scancel", *how, job_id], "signal the job")
    except Refused:
        return False
    return True


def as_dict(job: Job) -> dict[str, Any]:
    """For the status of the box."""
    shown = {
        name: getattr(job, name)
        for name in ("state", "reason", "restarts", "node", "start", "end", "left_s", "exit_code")
    }
    return {"job": job.job_id, **shown, "meaning": job.meaning, "why": sentence(job)}
