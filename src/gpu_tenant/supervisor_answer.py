# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a supervisor answered, read as a stranger's words: the state of a run, and what it warns of.

They are cleaned here, where they come in: whoever shows, sums up or writes down what was seen need not think of it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.bounded_json import read_json
from ansible_collections.tenant.gpu.plugins.module_utils.box import records

from gpu_tenant.observation import Observation, RunView, with_contact
from gpu_tenant.one_line import one_line
from gpu_tenant.question import NO_SUPERVISOR
from gpu_tenant.strangers_values import plain_values, seconds, whole

# What a shell ends with when the interpreter is not there, or cannot be run.
_NO_PYTHON = (126, 127)


def read_answer(seen: Observation, done: subprocess.CompletedProcess[bytes], run_id: str) -> Observation:
    error = one_line(done.stderr.decode("utf-8", "replace").strip()[-300:])
    if done.returncode == NO_SUPERVISOR:
        return with_contact(seen, "no_supervisor", problem="nothing is deployed on it")
    if done.returncode == 255:
        return with_contact(seen, "unreachable", problem=error or "ssh could not connect")
    if done.returncode in _NO_PYTHON:
        return with_contact(seen, "no_python", problem=error or "its interpreter is not there")
    try:
        answer = plain_values(read_json(done.stdout))
    except (ValueError, RecursionError):
        return with_contact(seen, "unreachable", problem=f"its supervisor answered with {done.returncode}: {error}")
    if not isinstance(answer, dict):
        return with_contact(seen, "unreachable", problem="its supervisor answered with what is no status")
    answered = with_contact(
        seen, "answered", run_view(answer, run_id), problem=one_line(str(answer.get("error") or ""))
    )
    told = answer.get("health")
    health = told if isinstance(told, Mapping) else {}
    answered = replace(answered, warnings=warnings(answer, run_id), zero_gpu=_has_lost_its_gpu(answer))
    return replace(answered, health=health, batch=batch_job(answer))


def _has_lost_its_gpu(answer: Mapping[str, Any]) -> bool:
    """The box has the driver's tool, the tool works, and it shows no card at all."""
    health = answer.get("health")
    found = health.get("gpu") if isinstance(health, Mapping) else None
    return isinstance(found, Mapping) and found.get("problem") == "" and found.get("cards") == []


def warnings(answer: Mapping[str, Any], run_id: str) -> tuple[str, ...]:
    """What the supervisor warns of: the health of the box, and progress that it cannot read."""
    health = answer.get("health")
    told = health.get("warnings") if isinstance(health, Mapping) else None
    found = [one_line(each) for each in told if isinstance(each, str)] if isinstance(told, list) else []
    run = run_view(answer, run_id)
    found += _of_batch(answer, run)
    problem = str(_leading_cell(run.raw).get("progress_problem") or "") if run else ""
    return tuple(found + ([f"progress: {one_line(problem)}"] if problem else []))


def _of_batch(answer: Mapping[str, Any], run: RunView | None) -> list[str]:
    """Of the job of a run at work: that it is suspended, that Slurm does not tell of it, or that nobody works at the
    share of a task of its array while others go on."""
    job = batch_job(answer)
    if not job or run is None or run.state != "running":
        return []
    tasks = _rows(job, "tasks")
    told: list[Mapping[str, Any]] = [job] if not tasks and _is_odd(job) else []
    told += [one for one in tasks if one.get("meaning") in ("refused", "goes_on") or _is_odd(one)]
    return [one_line(str(one.get("why") or "")) for one in told]


def _is_odd(job: Mapping[str, Any]) -> bool:
    return job.get("meaning") == "unknown" or job.get("state") in ("SUSPENDED", "STOPPED")


def batch_job(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """The batch job that the supervisor says it is; empty where it is none."""
    job = answer.get("batch")
    return job if isinstance(job, Mapping) else {}


def run_view(answer: Mapping[str, Any], run_id: str) -> RunView | None:
    """The run in a supervisor's status, or None when it does not know the run. ``run_id`` empty takes the first."""
    told = next((run for run in _rows(answer, "runs") if run_id in ("", run.get("run_id"))), None)
    if told is None:
        return None
    run = {**told, "cells": _rows(told, "cells")}
    leading = _leading_cell(run)
    why = _listed(run, "blocked_by") or [run.get("halted"), leading.get("why")]
    return RunView(
        state=one_line(str(run.get("state") or "")),
        step=whole(leading.get("step")),
        steps=whole(leading.get("steps")),
        loss=records.finite(leading.get("loss")),
        steps_per_s=records.finite(leading.get("rate")),
        eta_s=seconds(leading.get("eta_s")),
        attempt=whole(leading.get("attempt")),
        resumed_from=whole(leading.get("resumed_from_step")),
        reason=one_line("; ".join(str(each) for each in why if each)),
        failure=one_line(str(leading.get("failure") or "")),
        liveness=one_line(str(leading.get("liveness") or "")),
        waits_for=one_line(str(run.get("waits_for") or "")),
        raw=run,
    )


def _listed(told: Mapping[str, Any], name: str) -> list[Any]:
    """A list of a stranger's, or nothing where something else stands for it."""
    value = told.get(name)
    return value if isinstance(value, list) else []


def _rows(told: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return [row for row in _listed(told, name) if isinstance(row, dict)]


def _leading_cell(run: Mapping[str, Any]) -> Mapping[str, Any]:
    """The cell that is at work; else, of a run that failed, the last one that did; else the last one."""
    cells: list[Mapping[str, Any]] = run["cells"]
    live = [cell for cell in cells if cell.get("state") in ("running", "verifying", "copying")]
    failed = [cell for cell in cells if run.get("state") == cell.get("state") == "failed"]
    return (live or failed or cells or [{}])[-1]
