# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The verbs that change a box: register, start, resume-all, stop, hold. Each compares postures, so changed is honest.

All of them hold the box lock, pass the fence, and with ``check`` predict without writing anything.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from typing import Any, Iterator

from . import (
    array,
    attempt,
    batch,
    desired,
    detach,
    failure_class,
    fence,
    fetch_order,
    gates,
    index,
    inputs,
    judge,
    last_save,
    launch,
    locks,
    process,
    records,
    reserve,
    run_record,
    stopping,
    supervision,
    survey,
)
from .layout import Layout
from .refusal import DEADLINE, DISK, INPUTS, LIVE, SEALED, USAGE, Refused

LOCK_WITHIN_S = 60.0
SETTLE_WITHIN_S = 900.0
# At a boot, a network mount often comes after the script that resumes.
MOUNT_WITHIN_S = 180.0
MOUNT_LOOK_S = 2.0
LEAVE_LOOK_S = 0.05
# How often a batch system is asked whether a job has ended.
ELSEWHERE_LOOK_S = 2.0


@dataclass(frozen=True)
class Caller:
    """Who asks, and how: ``program`` is the argv that starts this program again."""

    program: tuple[str, ...]
    epoch: int | None = None
    check: bool = False


@contextlib.contextmanager
def box(layout: Layout, caller: Caller) -> Iterator[None]:
    """Hold the box lock and pass the fence. With check, nothing is locked or made: the root may not even exist."""
    if caller.check:
        fence.pass_fence(layout, caller.epoch, check=True)
        yield
        return
    os.makedirs(layout.root, mode=0o700, exist_ok=True)
    with locks.exclusive(layout.box_lock, LOCK_WITHIN_S, "the box"):
        fence.pass_fence(layout, caller.epoch)
        yield


def refuse_sealed(layout: Layout, verb: str) -> None:
    """Refused(SEALED), naming the seal, when there is one. A damaged seal is a seal."""
    if not os.path.lexists(layout.seal):
        return
    seal = attempt.read(layout.seal, "seal")
    when = f" since {seal['sealed_at']} (epoch {seal.get('epoch')})" if seal.get("sealed_at") else ""
    raise Refused(
        SEALED,
        f"{verb} is refused: the box is sealed{when} by {layout.seal}",
        "its results were promised to be final; to work here again, take the seal back (deploy_unseal=true or the "
        "verb unseal), then harvest anew",
    )


def outcome(before: dict[str, Any], after: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What a verb prints: ``changed`` and the fields that differ come from the one comparison."""
    names = [name for name in after if before.get(name) != after[name]]
    return {
        "changed": bool(names),
        "before": {name: before.get(name) for name in names},
        "after": {name: after[name] for name in names},
        **more,
    }


# --- register -------------------------------------------------------------------------------------------------


def register(layout: Layout, caller: Caller, record: object) -> dict[str, Any]:
    """Put a run into the index. The same record again changes nothing."""
    run = run_record.check_run(record)
    with box(layout, caller):
        known = index.read(layout)
        # A seal of an earlier generation promised something about a box that is no more.
        new_box = known is not None and run["generation"] > known["generation"]
        if not new_box:
            refuse_sealed(layout, "register")
        merged = index.merged(known, run, records.utc_now())
        found = survey.survey(layout)
        before = survey.posture(found, survey.read_daemon(layout)["alive"])
        if run["run_id"] in found.runs:
            index.check_replacement(found.runs[run["run_id"]], run, bool(found.live(run["run_id"])))
        whole = dict(run, schema=records.schema("run"))
        same = found.runs.get(run["run_id"]) == whole and merged == known
        if not same and not caller.check:
            _write_registration(layout, found, merged, run, new_box)
        runs = dict(before["runs"])
        runs[run["run_id"]] = records.digest({key: value for key, value in run.items() if key != "schema"})[:12]
        after = dict(before, runs=runs, sealed=before["sealed"] and not new_box)
        return outcome(before, after, run_id=run["run_id"], spec_sha256=run["spec_sha256"])


def _write_registration(
    layout: Layout, found: survey.Survey, merged: dict[str, Any], run: dict[str, Any], new_box: bool
) -> None:
    if new_box:
        _enter_generation(layout, found, run)
    known = found.runs.get(run["run_id"])
    if known is not None and index.only_appends(known, run):
        attempt.keep_brought(layout, known, run)
    # The record first: an index must never name a run that has none.
    records.write_record(layout.run_record(run["run_id"]), "run", run)
    if merged != found.index:
        records.write_record(layout.index, "index", merged)


def _enter_generation(layout: Layout, found: survey.Survey, run: dict[str, Any]) -> None:
    """The same disk under a newer generation: its runs continue there, an old seal is put aside."""
    for known in found.runs.values():
        records.write_record(layout.run_record(known["run_id"]), "run", dict(known, **run_record.identity(run)))
    put_seal_aside(layout)


def put_seal_aside(layout: Layout) -> str:
    """Rename the seal so that it is kept and no longer holds; its new path, empty without a seal."""
    if not os.path.lexists(layout.seal):
        return ""
    number = 1
    while os.path.lexists(layout.path(f"seal-{number}.json")):
        number += 1
    target = layout.path(f"seal-{number}.json")
    os.rename(layout.seal, target)
    records.fsync_directory(layout.root)
    return target


# --- start ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StartOptions:
    run_id: str | None = None
    means: supervision.Means = field(default_factory=supervision.Means)
    retry_failed: bool = False
    launch: object = None


def start(layout: Layout, caller: Caller, options: StartOptions) -> dict[str, Any]:
    """Let the registered runs go on: lift a hold and stops, start the supervisor unless one lives.

    :raises Refused: SEALED; USAGE when nothing is registered; DISK when the next cell may not start.
    """
    with box(layout, caller):
        refuse_sealed(layout, "start")
        if index.read(layout) is None:
            raise Refused(USAGE, "nothing is registered on this box", "register a run first (the deploy playbook does)")
        found = survey.survey(layout)
        if options.run_id is not None and options.run_id not in found.runs:
            raise Refused(USAGE, f"run {options.run_id!r} is not registered on this box", "deploy it first")
        wanted = _wanted_by_start(found, options)
        launches = _launched_by_start(layout, caller, found, options)
        return _go_on(layout, caller, found, wanted, options, launches)


def _launched_by_start(
    layout: Layout, caller: Caller, found: survey.Survey, options: StartOptions
) -> dict[str, dict[str, Any] | None]:
    """The launch that this start brings, written before anything is started by it."""
    run_id = options.run_id or ""
    if options.launch is None:
        if run_id and found.runs[run_id]["nodes"] and run_id not in found.launches:
            raise Refused(USAGE, f"run {run_id} works on several boxes and was not launched", launch.ASK_TRAIN)
        return {}
    if not run_id:
        raise Refused(USAGE, "a launch is for one run: name it")
    wanted = launch.check(options.launch, found.runs[run_id])
    launch.refuse_while_live(found.launches.get(run_id), wanted, bool(found.live(run_id)))
    if found.launches.get(run_id) != wanted and not caller.check:
        launch.write(layout, wanted)
    return {run_id: wanted}


def resume_all(layout: Layout, caller: Caller) -> dict[str, Any]:
    """What the box runs at each start. Obeys seal, hold and stops; says why it does nothing."""
    if not os.path.isdir(layout.root):
        return {"changed": False, "reason": "nothing is deployed"}
    waited_s = 0.0 if caller.check else _await_mount(layout)
    answer = _resume_all(layout, caller)
    return dict(answer, waited_for_mount_s=round(waited_s, 1)) if waited_s else answer


def _await_mount(layout: Layout) -> float:
    """Wait for the durable mount that the next step needs; for how long. What is wrong after that, others tell."""
    began = time.monotonic()
    while _lacks_mount(layout) and time.monotonic() - began < MOUNT_WITHIN_S:
        time.sleep(MOUNT_LOOK_S)
    waited_s = time.monotonic() - began
    return waited_s if waited_s >= MOUNT_LOOK_S else 0.0


def _lacks_mount(layout: Layout) -> bool:
    """Looked at without the lock: nothing is decided by it."""
    try:
        if index.read(layout) is None:
            return False
        found = survey.survey(layout)
    except (records.RecordError, Refused):
        return False
    step = found.next_step()
    run = found.runs.get(step.run_id)
    # What ended is copied there as well.
    wants = run is not None and step.kind in (judge.RUN, judge.FINISH) and found.orders.may_run(step.run_id)
    return wants and run is not None and bool(gates.durable_problem(run["durable"], layout.root))


def _resume_all(layout: Layout, caller: Caller) -> dict[str, Any]:
    with box(layout, caller):
        if index.read(layout) is None:
            return {"changed": False, "reason": "nothing is registered"}
        if os.path.lexists(layout.seal):
            return {"changed": False, "reason": "the box is sealed"}
        found = survey.survey(layout)
        if found.orders.desired == desired.HOLD:
            return {"changed": False, "reason": "the box is on hold"}
        if not caller.check:
            fetch_order.resume(layout, list(found.runs.values()), caller.program)
        return _go_on(layout, caller, found, found.wanted, StartOptions())


def _wanted_by_start(found: survey.Survey, options: StartOptions) -> dict[str, Any]:
    chosen = [options.run_id] if options.run_id is not None else list(found.runs)
    forgiven = {run_id: dict(cells) for run_id, cells in found.wanted["forgiven"].items()}
    for cell in found.cells:
        verdict = judge.judge_cell(cell)
        if cell.run_id not in chosen or verdict.state != judge.FAILED:
            continue
        last = cell.attempts[-1]
        if options.retry_failed or judge.heals_by_itself(last) or _has_more_time(found.runs[cell.run_id], last):
            forgiven.setdefault(cell.run_id, {})[cell.cell] = verdict.number
    stopped = {run_id: at for run_id, at in found.wanted["stopped"].items() if run_id not in chosen}
    return dict(found.wanted, desired=desired.RUN, stopped=stopped, forgiven=forgiven)


def _has_more_time(run: dict[str, Any], last: judge.AttemptFacts) -> bool:
    """Whether it was ended by a limit that is higher now, or lifted: no hash tells, for the limit is in none."""
    ended, limit_s = last.exit, run["cell_timeout_s"]
    if ended is None or ended.failure != failure_class.TIMED_OUT:
        return False
    return bool(not limit_s or limit_s > ended.seconds)


def _go_on(
    layout: Layout,
    caller: Caller,
    found: survey.Survey,
    wanted: dict[str, Any],
    options: StartOptions,
    launches: dict[str, dict[str, Any] | None] | None = None,
) -> dict[str, Any]:
    """Write what is wanted, and start the supervisor if there is something to do and none lives or waits to."""
    daemon, means = supervision.lives(layout, caller.check), options.means
    waits = "" if daemon and not means.array_tasks else supervision.waiting_job(layout, means.method, caller.check)
    before = survey.posture(found, daemon)
    if waits and not daemon:
        before["supervisor"] = detach.PENDING
        if not caller.check and not waits.count("_"):
            # The answer to the one that handed it in may have been lost.
            batch.note(layout, waits)
    if wanted != found.wanted and not caller.check:
        desired.write(layout, wanted)
    planned = survey.survey(layout, wanted, launches)
    step = planned.next_step()
    starts = step.kind != judge.NOTHING and not daemon and not waits and means.method != "none"
    cells = _cells_for_array(layout, caller, planned, means)
    if cells is not None:
        starts, before["turn"] = bool(cells), array.read(layout)["turn"]
    if starts and step.kind == judge.RUN:
        refusals = gates.refusals(layout.root, planned.runs[step.run_id])
        if refusals:
            raise Refused(
                DISK,
                f"{step.run_id}/{step.cell} may not start: {'; '.join(refusals)}",
                "make room there, then start again",
            )
        _refuse_unproven(layout, planned.runs[step.run_id])
    came = detach.RUNNING if starts else before["supervisor"]
    if starts and not caller.check:
        came = _start(layout, caller, means, cells)
    after = dict(survey.posture(planned, daemon), live=before["live"], supervisor=came)
    if cells is not None:
        after["turn"] = before["turn"] + int(starts)
    after["forgiven"], before["forgiven"] = wanted["forgiven"], found.wanted["forgiven"]
    states = {run_id: planned.state_of(run_id) for run_id in planned.runs}
    return outcome(before, after, adopted=daemon, states=states)


def _cells_for_array(
    layout: Layout, caller: Caller, planned: survey.Survey, means: supervision.Means
) -> list[tuple[str, str]] | None:
    """The cells for which an array is to be handed in; None where none was asked for, or one supervisor has them."""
    if not means.array_tasks or (not caller.check and supervision.single_lives(layout)):
        return None
    if caller.check and survey.read_one_daemon(layout)["alive"]:
        return None
    from . import crew  # as batch: with all that speaks to Slurm

    single = not array.tasks(layout) and supervision.waiting_job(layout, means.method, caller.check)
    cells = [] if single else crew.uncovered(layout, planned)
    if cells:
        supervision.refuse_array(layout, means, planned, cells)
    return cells


def _start(layout: Layout, caller: Caller, means: supervision.Means, cells: list[tuple[str, str]] | None) -> str:
    if cells is None:
        return supervision.start(layout, caller.program, means)
    return supervision.start_array(layout, caller.program, means, cells)


def _refuse_unproven(layout: Layout, run: dict[str, Any]) -> None:
    """Refused(INPUTS) unless the inputs are what was proven, or are on their way: the supervisor waits for those."""
    unproven = inputs.problems(layout, run["inputs"])
    if unproven and not fetch_order.is_running(layout, inputs.digest(run["inputs"])):
        what = f"run {run['run_id']} may not start: {'; '.join(unproven)}"
        raise Refused(INPUTS, what, "run the deploy playbook: it fetches and proves them")


# --- stop, hold -----------------------------------------------------------------------------------------------


def stop(layout: Layout, caller: Caller, run_id: str | None, grace_s: float | None) -> dict[str, Any]:
    """Stop a run, or all: no new cell until a start or a reboot, live cells asked to save and leave."""
    return _halt(layout, caller, run_id, grace_s, hold=False, stop_live=True)


def hold(layout: Layout, caller: Caller, stop_live: bool, grace_s: float | None) -> dict[str, Any]:
    """Start no new cell until a start, reboots included. A live cell goes on unless ``stop_live``."""
    return _halt(layout, caller, None, grace_s, hold=True, stop_live=stop_live)


def _halt(
    layout: Layout, caller: Caller, run_id: str | None, grace_s: float | None, hold: bool, stop_live: bool
) -> dict[str, Any]:
    with box(layout, caller):
        found = survey.survey(layout)
        if run_id is not None and run_id not in found.runs:
            raise Refused(USAGE, f"run {run_id!r} is not registered on this box")
        wanted = _wanted_by_halt(layout, found, run_id, hold, stop_live)
        withdrawn = _withdrawn_by_halt(layout, caller, found, run_id, stop_live)
        before = survey.posture(found, survey.read_daemon(layout)["alive"])
        waits = supervision.waiting_job(layout, check=caller.check)
        if waits:
            before["supervisor"] = detach.PENDING
        unwritten = None if wanted == found.wanted or caller.check else _write_order(layout, wanted)
        live = found.live(run_id) if stop_live else []
    # Without the lock: the supervisor needs it to see that nothing may go on.
    if live and not caller.check:
        _stop_live(layout, found, live, grace_s)
        _settle_if_unsupervised(layout, caller)
    if unwritten is not None:
        # Told after the signals: a trainer that fills the disk must end first of all.
        said = "what lives was stopped" if live else "nothing was stopped"
        what = f"{said}, and the order to stay so could not be written: {unwritten}"
        raise Refused(DISK, what, "free space on the box, then repeat the command")
    later = survey.survey(layout, wanted, withdrawn)
    useless = bool(waits) and later.next_step().kind == judge.NOTHING
    if useless and not caller.check:
        # A place in the queue for nothing: the next start takes another one.
        cancel = batch.cancel_waiting if array.tasks(layout) else batch.cancel_all
        cancel(detach.unit_name(layout.root))
    planned = survey.posture(later, before["supervisor"] == "running")
    still = [name for name in before["live"] if not stop_live or (run_id and not name.startswith(f"{run_id}/"))]
    after = dict(planned, live=still, supervisor="absent" if useless else before["supervisor"])
    return outcome(before, after, stopped_cells=[f"{cell.run_id}/{cell.cell}" for cell in live])


def _write_order(layout: Layout, wanted: dict[str, Any]) -> OSError | None:
    """Why a full disk did not take the order; None when it did."""
    try:
        desired.write(layout, wanted)
    except OSError as error:
        if not reserve.is_full(error):
            raise
        return error
    return None


def _withdrawn_by_halt(
    layout: Layout, caller: Caller, found: survey.Survey, run_id: str | None, stop_live: bool
) -> dict[str, dict[str, Any] | None]:
    """A stop takes the launch back: the boxes of a run start together, which only the train playbook can see to."""
    chosen = [name for name in found.launches if run_id in (None, name)] if stop_live else []
    for name in chosen:
        if not caller.check:
            launch.write(layout, found.launches[name], withdrawn=True)
    return dict.fromkeys(chosen)


def _wanted_by_halt(
    layout: Layout, found: survey.Survey, run_id: str | None, hold: bool, stop_live: bool
) -> dict[str, Any]:
    boot = desired.life(layout)
    chosen = [run_id] if run_id is not None else list(found.runs)
    stopped = {name: at for name, at in found.wanted["stopped"].items() if at == boot}
    if stop_live:
        stopped.update({name: boot for name in chosen if found.state_of(name) not in (judge.DONE, judge.FAILED)})
    return dict(found.wanted, desired=desired.HOLD if hold else found.wanted["desired"], stopped=stopped)


def _stop_live(layout: Layout, found: survey.Survey, live: list[judge.CellFacts], grace_s: float | None) -> None:
    grace = max(found.runs[cell.run_id]["grace_s"] for cell in live) if grace_s is None else grace_s
    stopping.stop_all([survey.paths_of(layout, cell) for cell in live], grace, "a person or the controller asked")


def _settle_if_unsupervised(layout: Layout, caller: Caller) -> None:
    """Judge what was just stopped, unless a supervisor lives or the disk is full: then that is for the next one."""
    try:
        with contextlib.suppress(Refused), settled(layout, caller, within_s=0):
            pass
    except OSError as error:
        if not reserve.is_full(error):
            raise


def leave(layout: Layout) -> dict[str, Any]:
    """What the start script of a container does when it is told that the container ends: trainers save, the supervisor
    leaves, and the next start goes on. Neither a lock nor the fence is asked: there are seconds.

    Returns when all of them have left: whoever asks is the first process, whose end ends them all.
    """
    identity = process.identity_from(attempt.read(layout.daemon, "daemon").get("process"))
    told = process.send(identity, signal.SIGTERM)
    found = survey.survey(layout)
    live = found.live()
    grace_s = max([last_save.told_s(found.runs[cell.run_id]) for cell in live], default=0.0)
    until = time.monotonic() + grace_s + stopping.SETTLE_S
    while told and process.observe(identity) == process.ALIVE and time.monotonic() < until:
        time.sleep(LEAVE_LOOK_S)
    # A supervisor has waited for its trainers; they may also live without one.
    stopping.stop_all([survey.paths_of(layout, cell) for cell in live if not told], grace_s, "the container ends")
    return {"changed": told or bool(live), "cells": [f"{cell.run_id}/{cell.cell}" for cell in live]}


def _still_at_work(within_s: float) -> Refused:
    return Refused(DEADLINE, f"the supervisor was still at work after {within_s:g} s", "repeat the command")


# --- settling: nothing lives, nothing is pending ------------------------------------------------------------------


@contextlib.contextmanager
def settled(layout: Layout, caller: Caller, within_s: float = SETTLE_WITHIN_S) -> Iterator[survey.Survey]:
    """Wait for the supervisor to leave, keep any other from starting, and finish what ended without one.

    :raises Refused: DEADLINE when it is still verifying or copying; LIVE when a cell lives after all.
    """
    until = time.monotonic() + within_s
    try:
        lock = locks.lock_within(layout.daemon_lock, within_s, "the supervisor's lock")
    except Refused as refused:
        raise _still_at_work(within_s) from refused
    while supervision.works_elsewhere(layout):
        if time.monotonic() >= until:
            os.close(lock)
            raise _still_at_work(within_s)
        time.sleep(ELSEWHERE_LOOK_S)
    try:
        with box(layout, caller):
            for _turn in range(10000):
                found = survey.survey(layout)
                step = found.next_step()
                if step.kind != judge.FINISH:
                    break
                run = found.runs[step.run_id]
                from . import finish  # as in supervise

                finish.finish(layout, run, run_record.cell_of(run, step.cell), step.number)
            if found.live():
                raise Refused(LIVE, "a cell came to life meanwhile", "repeat the command")
            yield found
    finally:
        os.close(lock)
