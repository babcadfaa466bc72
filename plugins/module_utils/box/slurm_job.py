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
from typing import Any

from .refusal import Refused
from .tool import run_tool

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
_SPAN = re.compile(r"(?:([0-9]+)-)?([0-9]+(?::[0-9]{1,2}){0,2})\Z")
# One answer serves the many processes of one look.
_FRESH_S = 2.0
_seen: dict[str, tuple[float, Job | None]] = {}


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
    told = dict(_PAIR.findall(text.strip().split("\n", 1)[0]))
    if not told.get("JobId") or not told.get("JobState"):
        return None
    memory = told.get("MinMemoryNode") or told.get("MinMemoryCPU") or ""
    reason = told.get("Reason", "")
    return Job(
        told["JobId"],
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
    try:
        found = parse_scontrol(run_tool(["scontrol", "--oneliner", "show", "job", job_id], "tell of the job"))
    except Refused as refused:
        if "Invalid job id" not in refused.what:
            raise
        found = None
    if found is None or found.state == "OUT_OF_MEMORY":
        return _accounted(job_id) or found
    return found


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
    known = _seen.get(job_id)
    if known is None or time.monotonic() - known[0] > _FRESH_S:
        known = _seen[job_id] = (time.monotonic(), look(job_id))
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
