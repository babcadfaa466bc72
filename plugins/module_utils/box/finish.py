# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What follows an attempt: verify its artifacts, copy them, write done.json. Safe to repeat after any crash."""

from __future__ import annotations

import os
from typing import Any

from . import (
    artifacts,
    attempt,
    durable,
    heartbeat,
    judge,
    launch,
    process,
    progress,
    pruning,
    records,
    reserve,
    run_log,
    run_record,
)
from .layout import AttemptPaths, Layout
from .progress_source import Reached
from .refusal import ARTIFACT_MISSING, PREEMPTED, TRAINER_FAILED, Refused

# Of the steps that the trainer itself says it makes; early stopping ends later than that.
LEAST_SHARE = 0.5


def finish(layout: Layout, run: dict[str, Any], cell: dict[str, Any], number: int, watched: bool = False) -> str:
    """Bring an ended attempt to done, failed or preempted; returns which.

    :param watched: this supervisor saw the attempt alive, so a trainer and shim that vanished were killed under it.
    """
    paths = layout.attempt(run["run_id"], cell["id"], number)
    keys = attempt.work(run, cell, number)
    ended = attempt.exit_facts(attempt.read(paths.exit, "exit"))
    # Nobody writes any more while its artifacts are read.
    process.end_all(attempt.members(paths))
    # A shim that was killed could not give its reserve back.
    reserve.free(paths.reserve)
    proven = ended is not None and ended.child == 0 and not ended.stop_asked
    attempt.write_status(paths, keys, state=judge.VERIFYING, verifying_at=records.utc_now())
    try:
        if proven:
            _refuse_early_end(paths, heartbeat.last_word(layout, run["run_id"], cell["id"], number))
        else:
            _demand_completeness(paths)
        lax = launch.may_lack_artifacts(layout, run)
        found, skipped = artifacts.collect(paths.output, run["artifacts"], run_record.is_part(run), lax)
        roster = [dict(each, path=f"{paths.relative}/out/{each['path']}") for each in found] + _records_of(paths)
        attempt.write_status(paths, keys, state=judge.COPYING)
        copied = durable.copy_artifacts(layout, run, paths, roster)
        promised, on_mount = pruning.split(run, paths, roster) if copied["state"] == "synced" else (roster, [])
        done = _done_record(keys, ended, promised, skipped, copied)
        done.update({"durable_only": on_mount} if on_mount else {})
        durable.copy_done(copied, done)
    except Refused as refused:
        if proven:
            return _fail(paths, keys, refused)
        return _give_up(paths, keys, ended, watched, refused)
    _write_done(paths, keys, done)
    return judge.DONE


def _refuse_early_end(paths: AttemptPaths, followed: Reached) -> None:
    """An exit code of 0 long before the last step is no success: a data set that was empty, a loop that was left.

    Its metrics are asked, and what it is followed by, if that is something else.
    """
    metrics = progress.read_progress(paths.metrics)
    for step, steps in ((metrics.step, metrics.steps), (followed.step, followed.steps)):
        if step is not None and steps is not None and step < LEAST_SHARE * steps:
            raise Refused(
                ARTIFACT_MISSING,
                f"suspicious: it ended with exit code 0 at step {step} of {steps}",
                "look at its log; if it may end so early, let it tell the steps that it means to make",
            )


def _demand_completeness(paths: AttemptPaths) -> None:
    """Without a seen exit, the trainer's own count is a witness too: a half-way run also has artifacts.

    Only that of its metrics: the last step of a log or of event files may be that of an epoch.
    """
    reached = progress.read_progress(paths.metrics)
    if reached.step is None or reached.steps is None:
        raise Refused(ARTIFACT_MISSING, "nobody saw it end, and its metrics do not say that it reached its last step")
    if reached.step < reached.steps:
        raise Refused(ARTIFACT_MISSING, f"it ended at step {reached.step} of {reached.steps}")


def _records_of(paths: AttemptPaths) -> list[dict[str, Any]]:
    """Metrics and log of an ended attempt: they die with the box, so they are artifacts. So is what the log held before
    it was rotated: the last words may be in it."""
    found = []
    for path, role in ((paths.metrics, "metrics"), (paths.log, "log"), (run_log.earlier(paths.log), "log")):
        if os.path.isfile(path) and not os.path.islink(path):
            size, sha256 = artifacts.hash_stable(path)
            name = f"{paths.relative}/{os.path.basename(path)}"
            found.append({"path": name, "bytes": size, "sha256": sha256, "role": role, "loader": "none"})
    return found


def _fail(paths: AttemptPaths, keys: dict[str, Any], refused: Refused) -> str:
    outcome = {"wrapper": refused.code, "child": 0}
    attempt.write_status(paths, keys, state=judge.FAILED, exit=outcome, why=refused.what, ended_at=records.utc_now())
    return judge.FAILED


def _give_up(
    paths: AttemptPaths, keys: dict[str, Any], ended: judge.ExitFacts | None, watched: bool, refused: Refused
) -> str:
    """The artifacts do not show an end, so the attempt was cut short: note it, to be continued by the next."""
    if ended is None and os.path.exists(paths.stop):
        attempt.write_exit(paths, keys, wrapper=PREEMPTED, child=None, stop_asked=True, why="stopped on request")
    elif ended is None:
        cause, why = _how_it_vanished(attempt.trainer_of(paths), watched)
        wrapper = TRAINER_FAILED if cause == "lost" else PREEMPTED
        attempt.write_exit(paths, keys, wrapper=wrapper, child=None, cause=cause, why=why)
        state = judge.FAILED if cause == "lost" else judge.PREEMPTED_STATE
        outcome = {"wrapper": wrapper, "child": None}
        attempt.write_status(paths, keys, state=state, exit=outcome, why=f"{why}; {refused.what}")
        return state
    child = ended.child if ended else None
    attempt.write_status(paths, keys, state=judge.PREEMPTED_STATE, exit={"wrapper": PREEMPTED, "child": child})
    return judge.PREEMPTED_STATE


def _how_it_vanished(trainer: process.Identity | None, watched: bool) -> tuple[str, str]:
    """Cause and reason, with the evidence, for a trainer and a shim that are gone without a word."""
    seen, now = process.observe(trainer), process.current_boot()
    if trainer is not None and process.is_elsewhere(trainer):
        return "interrupted", f"its batch job {trainer.job} ended: it trained under boot id {trainer.boot_id}"
    if trainer is not None and seen == process.REBOOTED:
        return "interrupted", f"the machine rebooted: boot id {trainer.boot_id} when it trained, {now.boot_id} now"
    if trainer is not None and seen == process.RESTARTED:
        began = f"pid 1 had begun at tick {trainer.pid1_start} when it trained, at {now.pid1_start} now"
        return "interrupted", f"the container was restarted: boot id {now.boot_id} as before, {began}"
    if watched:
        return "lost", "the trainer and its shim vanished"
    life = f"boot id {now.boot_id}, pid 1 began at tick {now.pid1_start}"
    known = "as when it trained" if trainer is not None else "nobody recorded who the trainer was"
    return "interrupted", f"everything of the run was killed at once, the supervisor too: {life}, {known}"


def _done_record(
    keys: dict[str, Any],
    ended: judge.ExitFacts | None,
    roster: list[dict[str, Any]],
    skipped: list[dict[str, str]],
    copied: dict[str, Any],
) -> dict[str, Any]:
    child = ended.child if ended else None
    done = dict(keys, finished_at=records.utc_now(), wrapper_exit=0, child_exit=child, durable=copied)
    return dict(done, artifacts=roster, skipped=skipped)


def _write_done(paths: AttemptPaths, keys: dict[str, Any], done: dict[str, Any]) -> None:
    records.write_record(paths.done, "done", done)
    outcome, state = {"wrapper": 0, "child": done["child_exit"]}, done["durable"]["state"]
    attempt.write_status(paths, keys, state=judge.DONE, exit=outcome, durable=state, why="", ended_at=records.utc_now())
