# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Status: computed from what lies on the disk and in /proc now, never stored. Takes no lock, writes nothing."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace
from typing import Any, Iterator

from . import (
    artifacts,
    attempt,
    fence,
    fetch_order,
    gates,
    health,
    heartbeat,
    inputs,
    judge,
    process,
    queue,
    reach,
    records,
    run_record,
    stall,
    survey,
)
from .layout import AttemptPaths, Layout
from .refusal import ARTIFACT_INVALID, DISK, INPUTS, INTERPRETER, PREEMPTED, Refused

# As slurm_job means them, which only a box with a batch system loads.
WAITS, LIVES, REFUSED = "waits", "lives", "refused"


def status(layout: Layout, run_id: str | None = None) -> dict[str, Any]:
    """The box, its supervisor, and every run (or one). Damaged records are told under ``problems``."""
    problems: list[str] = []
    epoch: int | None = None
    with _telling(problems):
        epoch = fence.known_epoch(layout)
    found: survey.Survey | None = None
    with _telling(problems):
        found = survey.survey(layout)
    daemon: dict[str, Any] = {"alive": False, "pid": None}
    with _telling(problems):
        daemon = survey.read_daemon(layout)
    job = None
    with _telling(problems):
        job = _job(layout, found)
    known = (found.index if found else None) or {}
    wanted = [] if found is None else [each for each in found.runs if run_id in (None, each)]
    return {
        **{key: known.get(key) for key in run_record.IDENTITY},
        "daemon": daemon,
        "sealed": os.path.lexists(layout.seal),
        "desired": found.orders.desired if found else "hold",
        "epoch": epoch,
        "runs": [_run(layout, found, each, daemon, job) for each in wanted] if found else [],
        "batch": job,
        "disk": gates.disk_of(layout.root).as_dict(),
        "health": _health(layout, bool(daemon["alive"])),
        "boot": process.current_boot().as_dict(),
        "problems": problems + list(found.problems if found else ()),
        "box_now": records.utc_now(),
    }


@contextlib.contextmanager
def _telling(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except (records.RecordError, Refused) as error:
        problems.append(f"{error}: {error.fix}" if isinstance(error, Refused) and error.fix else str(error))


def _job(layout: Layout, found: survey.Survey | None) -> dict[str, Any] | None:
    """The batch job that the supervisor is, for a box that has a batch system; of an array all tasks as one."""
    if not os.path.exists(layout.batch):
        return None
    from . import batch, crew  # where there is one only

    told = crew.of_status(layout, found) if found is not None else None
    return batch.look(layout) if told is None else told


def _health(layout: Layout, alive: bool) -> dict[str, Any] | None:
    if not os.path.exists(layout.array):
        return health.read(layout, alive)
    from . import crew  # as above

    with contextlib.suppress(records.RecordError):
        return crew.health_of(layout) or health.read(layout, alive)
    return None


def _run(
    layout: Layout, found: survey.Survey, run_id: str, daemon: dict[str, Any], job: dict[str, Any] | None
) -> dict[str, Any]:
    run, supervised = found.runs[run_id], bool(daemon["alive"])
    cells = [_cell(layout, run, cell) for cell in found.cells if cell.run_id == run_id]
    halted = found.halt_of(run_id)
    ended = queue.of(found.verdicts(run_id), supervised, bool(halted))
    state = judge.run_state([cell["state"] for cell in cells], bool(halted))
    blocked_by: list[str] = []
    fetch = fetch_order.status(layout, run["inputs"]) if run["inputs"] else None
    code = DISK
    if state in (judge.QUEUED, judge.PREEMPTED_STATE) and not supervised and found.orders.may_run(run_id):
        blocked_by = gates.refusals(layout.root, run)
        if not blocked_by and fetch and fetch["state"] not in (fetch_order.PROVEN, fetch_order.FETCHING):
            blocked_by, code = inputs.problems(layout, run["inputs"]), INPUTS
        if not blocked_by:
            blocked_by, code = _left_for(daemon, run_id), INTERPRETER
        if not blocked_by and job:
            blocked_by, code = _refused(job, run_id), PREEMPTED
    twice = found.finished_twice(run_id) if os.path.exists(layout.array) else []
    if twice:
        # Before anything is counted: a done run is one whose roster adds up.
        blocked_by, code, ended = twice, ARTIFACT_INVALID, replace(ended, end=queue.ABORTED)
    waits = job and not supervised and state not in (judge.DONE, judge.FAILED)
    return {
        "run_id": run_id,
        "spec_sha256": run["spec_sha256"],
        "code_sha256": run["code_sha256"],
        "state": judge.BLOCKED if blocked_by else state,
        "blocked_by": blocked_by,
        "exit": code if blocked_by else None,
        "queue": ended.as_dict(),
        "inputs": fetch,
        "waits_for": _waits_for(job, daemon) if job and waits else "",
        "stopped": run_id in found.orders.stopped,
        "halted": halted,
        "awaits_launch": bool(run["nodes"]) and run_id not in found.launches,
        "cells": cells,
    }


def _refused(job: dict[str, Any], run_id: str) -> list[str]:
    """Why no later look will find the run at work, unless a person does something: its job, or tasks of its array."""
    if "tasks" not in job:
        return [job["why"]] if job["meaning"] == REFUSED else []
    own = [one for one in job["tasks"] if any(cell.startswith(f"{run_id}/") for cell in one["cells"])]
    alive = any(one["begins"] or one["meaning"] in (WAITS, LIVES) for one in own)
    return [] if alive else [str(one["why"]) for one in own if one["meaning"] == REFUSED]


def _waits_for(job: dict[str, Any], daemon: dict[str, Any]) -> str:
    """What keeps a run from its supervisor that will come by itself: the queue, or the begin of the job."""
    if "tasks" in job:
        wait = [one for one in job["tasks"] if one["begins"] or one["meaning"] == WAITS]
        return str(job["why"]) if wait else ""
    if job["meaning"] == WAITS:
        return str(job["why"])
    begins = job["meaning"] == LIVES and daemon.get("job") != f"{job['job']}.{job['restarts']}"
    return f"{job['why']}, and its supervisor is not there yet" if begins else ""


def _left_for(daemon: dict[str, Any], run_id: str) -> list[str]:
    """Why the last supervisor gave the run up: its GPUs, which only a supervisor looks at."""
    told = daemon.get("blocked")
    blocked = told if isinstance(told, dict) and told.get("run_id") == run_id else {}
    return [str(each) for each in blocked.get("by") or []]


def _cell(layout: Layout, run: dict[str, Any], cell: judge.CellFacts) -> dict[str, Any]:
    verdict = judge.judge_cell(cell)
    facts = next((each for each in cell.attempts if each.number == verdict.number), None)
    # A cell that waits for its next attempt is described by its last one.
    shown = facts or (cell.attempts[-1] if cell.attempts else None)
    if shown is None:
        return {"cell": cell.cell, "attempt": 0, "state": verdict.state, "liveness": "none", "why": verdict.why}
    paths = layout.attempt(cell.run_id, cell.cell, shown.number)
    return {"cell": cell.cell, **_attempt(paths, run, shown, verdict)}


def _attempt(
    paths: AttemptPaths, run: dict[str, Any], facts: judge.AttemptFacts, verdict: judge.Verdict
) -> dict[str, Any]:
    record = attempt.read(paths.status, "status")
    running_s = _running_s(record) if facts.alive else None
    checkpoint = _last_checkpoint(paths, run)
    idle_s = stall.idle_s(paths, record.get("life"))
    # The done record is written first: the status follows a moment later.
    done = attempt.read(paths.done, "done") if facts.done else {}
    exit_shown = _exit_of_done(done) if facts.done else record.get("exit") or _exit_of(facts)
    word = judge.liveness_word(facts.alive, facts.done, facts.begun, facts.earlier_life, idle_s, run["stall_s"])
    state = verdict.state
    if state == judge.VERIFYING and facts.phase == judge.COPYING:
        state = judge.COPYING
    return {
        "attempt": facts.number,
        "state": state,
        "liveness": word,
        **heartbeat.reached(paths, run["progress"], running_s),
        "last_checkpoint": checkpoint,
        "exit": exit_shown,
        "why": verdict.why or (facts.why if state != judge.DONE else ""),
        "failure": facts.exit.failure if state == judge.FAILED and facts.exit else "",
        "started_at": record.get("started_at"),
        "ended_at": record.get("ended_at"),
        "running_s": running_s,
        "idle_s": idle_s,
        "heartbeat_at": record.get("heartbeat_at"),
        "process": record.get("process"),
        "config_sha256": record.get("config_sha256") or attempt.work_of(paths).get("config_sha256"),
        "durable": _durable_of(run, record, done),
        "log_bytes": os.path.getsize(paths.log) if os.path.exists(paths.log) else 0,
    }


def _exit_of_done(done: dict[str, Any]) -> dict[str, Any]:
    return {"wrapper": done.get("wrapper_exit"), "child": done.get("child_exit")}


def _durable_of(run: dict[str, Any], record: dict[str, Any], done: dict[str, Any]) -> str:
    """``synced`` only behind a copy that was read back; else the run's kind, or ``not yet`` where there is a mount."""
    kind = run["durable"]["kind"]
    told = (done.get("durable") or {}).get("state") or record.get("durable")
    return str(told or ("not yet" if kind == "mount" else kind))


def _exit_of(facts: judge.AttemptFacts) -> dict[str, Any] | None:
    return {"wrapper": facts.exit.wrapper, "child": facts.exit.child} if facts.exit else None


def _last_checkpoint(paths: AttemptPaths, run: dict[str, Any]) -> dict[str, Any] | None:
    """The newest checkpoint by name, not read: savers rename whole files into place."""
    units = artifacts.checkpoint_units(paths.output, run["artifacts"]) if os.path.isdir(paths.output) else []
    if not units:
        return None
    newest = units[0]
    return {
        "path": f"{paths.relative}/out/{newest['key']}",
        "step": newest["step"],
        "series": reach.of_units(units)["series"],
        "bytes": sum(entry["bytes"] for entry in newest["files"]),
        "age_s": round(max(0.0, time.time() - newest["mtime"]), 1),
    }


def _running_s(record: dict[str, Any]) -> float | None:
    """The trainer's age; by its shim's record of the time when only the shim lives any more."""
    age = process.age_s(process.identity_from(record.get("process")))
    return _age(record.get("started_at")) if age is None else age


def _age(started_at: object) -> float | None:
    if not isinstance(started_at, str):
        return None
    try:
        return max(0.0, time.time() - records.parse_utc(started_at).timestamp())
    except ValueError:
        return None
