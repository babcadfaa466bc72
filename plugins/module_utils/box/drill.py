# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The resume drill: the run's own command, on this very box, killed after its first checkpoint and started again.

It runs below a tenant root of its own (``<root>/drills/<run>/box``), with a supervisor, a copy of the code and folders
of its own, and never on the durable mount: the real run finds none of it. What it proves stands in
``<root>/drills/<run>/verdict.json``; the rest is removed when it has passed, and kept for a look when it has not. Then
the box stays on hold, so that a restart does not begin the run.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from dataclasses import dataclass, replace
from typing import Any, Iterator

from . import (
    artifacts,
    attempt,
    control,
    desired,
    drill_moment,
    drill_start,
    drill_steps,
    drill_verdict,
    gates,
    judge,
    locks,
    process,
    records,
    run_record,
    survey,
)
from .layout import AttemptPaths, Layout
from .names import check_name
from .progress_source import METRICS, REGEX, TENSORBOARD
from .refusal import DISK, LIVE, USAGE, Refused
from .step_name import training_step_in

DEFAULT_DEADLINE_S = 900.0
VARIABLE = "TENANT_DRILL"
_POLL_S = 0.1
_START_AGAIN_S = 2.0
_SETTLE_S = 30.0
_LOG_LINES = 20
_WHERE = {METRICS: "the metrics", TENSORBOARD: "the event files", REGEX: "the log"}


@dataclass(frozen=True)
class Options:
    """:param again: drill although this very work has passed on this box."""

    run_id: str
    cell: str | None = None
    deadline_s: float = DEFAULT_DEADLINE_S
    tolerance: float = drill_verdict.DEFAULT_TOLERANCE
    again: bool = False


class _Failed(Exception):
    """The drill has its verdict before anything could be compared."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(why)
        self.verdict = drill_verdict.Verdict(reason, why)


def record_path(layout: Layout, run_id: str) -> str:
    return layout.path("drills", check_name("run", run_id), "verdict.json")


def drill(layout: Layout, caller: control.Caller, options: Options) -> dict[str, Any]:
    """Drill one cell of a registered run; ``{changed, drill}``. A failed drill is an answer, not a refusal.

    :raises Refused: LIVE when a cell of this box lives; USAGE for an unknown run, or one of several boxes; DISK.
    """
    control.refuse_sealed(layout, "drill")
    found = survey.survey(layout)
    run = found.runs.get(options.run_id)
    if run is None:
        raise Refused(USAGE, f"run {options.run_id!r} is not registered on this box", "deploy it first")
    if run_record.is_part(run):
        boxes = ", ".join(run["parts"])
        raise Refused(
            USAGE, f"run {run['run_id']} works on several boxes ({boxes}), and a drill is of one", "leave the drill out"
        )
    cell = run_record.cell_of(run, options.cell or run["cells"][0]["id"])
    known = attempt.read(record_path(layout, run["run_id"]), "drill")
    if not options.again and _says_passed(known, run, cell):
        return {"changed": False, "drill": known}
    if caller.check:
        return {"changed": True, "drill": None}
    _refuse_unfit(layout, found, run)
    folder = os.path.dirname(record_path(layout, run["run_id"]))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with locks.exclusive(os.path.join(folder, "drill.lock"), 0.0, f"the drill of run {run['run_id']}"):
        # A box that restarts meanwhile, or after a drill that failed, must not begin the run by itself.
        control.hold(layout, caller, stop_live=False, grace_s=None)
        record = _Drill(layout, caller, run, cell, options).run()
        if record["passed"]:
            with control.box(layout, caller):
                desired.write(layout, found.wanted)
        return {"changed": True, "drill": record}


def _says_passed(known: dict[str, Any], run: dict[str, Any], cell: dict[str, Any]) -> bool:
    return known.get("passed") is True and all(known.get(key) == value for key, value in _work(run, cell).items())


def _work(run: dict[str, Any], cell: dict[str, Any]) -> dict[str, Any]:
    """Whose drill it is: another box, another generation of it or another spec is another drill."""
    keys = attempt.work(run, cell, 0)
    del keys["attempt"]
    return keys


def _refuse_unfit(layout: Layout, found: survey.Survey, run: dict[str, Any]) -> None:
    live = [f"{cell.run_id}/{cell.cell}" for cell in found.live()]
    if live:
        fix = "a drill comes before the training; wait for its end, or stop it first"
        raise Refused(LIVE, f"this box trains ({', '.join(live)}): a drill would take its GPU and memory", fix)
    shortages = gates.shortages_named(layout.root, run["limits"])
    if shortages:
        raise Refused(DISK, f"no room for a drill: {'; '.join(shortages)}", "free space on the box")


class _Drill:
    def __init__(
        self, layout: Layout, caller: control.Caller, run: dict[str, Any], cell: dict[str, Any], options: Options
    ) -> None:
        self._layout, self._run, self._cell, self._options = layout, run, cell, options
        self._folder = os.path.dirname(record_path(layout, run["run_id"]))
        self._box = Layout(os.path.join(self._folder, "box"))
        # The lease of the real root says nothing about this one.
        self._caller = control.Caller(caller.program)
        self._until = time.monotonic() + options.deadline_s
        self._facts: dict[str, Any] = dict.fromkeys(("checkpoint", "saved_step", "killed_at_step", "steps_from"))
        self._tries: dict[int, drill_steps.Steps] = {}
        self._to_first_step_s = 0.0
        self._drilled = drill_record(run, cell, os.path.join(self._folder, "code"))

    def run(self) -> dict[str, Any]:
        begun, started_at = time.monotonic(), records.utc_now()
        try:
            verdict = self._perform()
        except _Failed as failed:
            verdict = failed.verdict
        finally:
            self._end_processes()
        tail = [] if verdict.passed else self._log_tail()
        if verdict.passed:
            self._remove()
        record = {
            **_work(self._run, self._cell),
            **self._facts,
            **verdict.as_dict(),
            "passed": verdict.passed,
            "seconds": round(time.monotonic() - begun, 3),
            "deadline_s": self._options.deadline_s,
            "started_at": started_at,
            "ended_at": records.utc_now(),
            "kept": "" if verdict.passed else self._folder,
            "log_tail": tail,
        }
        return records.write_record(record_path(self._layout, self._run["run_id"]), "drill", record)

    def _perform(self) -> drill_verdict.Verdict:
        self._end_processes()
        self._remove()
        shutil.copytree(code_folder(self._run), os.path.join(self._folder, "code"), symlinks=True)
        control.register(self._box, self._caller, self._drilled)
        first = self._paths(1)
        before = self._train_and_kill(first)
        after = self._relaunch(self._paths(2), before)
        verdict = drill_verdict.judge(
            before, after, self._facts["saved_step"], self._options.tolerance, self._announces()
        )
        return self._as_cut(verdict)

    def _announces(self) -> bool:
        """Whether a step may be told that is not made there: a log says where it resumes, a bar is drawn beforehand."""
        return bool(self._facts["steps_from"] != METRICS)

    def _as_cut(self, verdict: drill_verdict.Verdict) -> drill_verdict.Verdict:
        """A kill between two epochs does not show what a script does with the rest of one, and nobody may think so."""
        if not verdict.passed or self._facts["mid_epoch"] is not False:
            return verdict
        uncut = "the kill came at the border of an epoch, so that going on within one was not shown"
        return replace(verdict, why=f"{verdict.why}; {uncut}")

    # --- the first try ----------------------------------------------------------------------------------------

    def _train_and_kill(self, paths: AttemptPaths) -> list[dict[str, Any]]:
        """The lines at the moment of the kill, in mid-epoch, with losses after the newest whole checkpoint."""
        moment, begun = drill_moment.Moment(), time.monotonic()
        for lines in self._watched(paths):
            if not moment.saw(time.monotonic(), lines, self._newest(paths)):
                continue
            # Stopped, so that what is judged is what the kill leaves.
            process.kill_all(attempt.members(paths), signal.SIGSTOP)
            lines = self._steps(paths).lines()
            moment.saw(time.monotonic(), lines, self._newest(paths))
            if not moment.has_come(self._until - time.monotonic()):
                process.kill_all(attempt.members(paths), signal.SIGCONT)
                continue
            self._end_processes()
            self._note_kill(paths, lines)
            self._to_first_step_s = moment.first_told_at - begun
            return lines
        raise self._overdue(paths)

    def _newest(self, paths: AttemptPaths) -> dict[str, Any] | None:
        """The newest checkpoint, whole or not."""
        return next(iter(artifacts.checkpoint_units(paths.output, self._run["artifacts"])), None)

    def _note_kill(self, paths: AttemptPaths, lines: list[dict[str, Any]]) -> None:
        steps = drill_verdict.steps_of(lines)
        newest = artifacts.newest_sound_checkpoint(paths.output, self._run["artifacts"])
        if newest is None:
            raise _Failed("no_checkpoint", "what the trainer left as a checkpoint is not whole")
        self._facts.update(
            checkpoint=newest["key"],
            saved_step=training_step_in(newest["key"]),
            killed_at_step=steps[-1][0] if steps else None,
            steps_from=self._steps(paths).source,
            mid_epoch=drill_moment.in_mid_epoch(lines),
        )

    def _overdue(self, paths: AttemptPaths) -> _Failed:
        read = self._steps(paths)
        steps = drill_verdict.steps_of(read.lines())
        within = f"within {self._options.deadline_s:g} s"
        made = f"no step is in {' or '.join(_WHERE[each] for each in read.places)}"
        if steps:
            made = f"{len(steps)} steps are in {_WHERE[read.source]}, the last is {steps[-1][0]}"
        made += f" ({read.problem})" if read.problem else ""
        if self._newest(paths) is not None:
            return _Failed("no_metrics", f"a checkpoint was saved, but nothing shows the steps {within}: {made}")
        return _Failed("no_checkpoint", f"no whole checkpoint was saved {within}; {made}")

    # --- the second -------------------------------------------------------------------------------------------

    def _relaunch(self, paths: AttemptPaths, before: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The lines of the same command started again, up to where the first try was killed."""
        steps = drill_verdict.steps_of(before)
        saved = self._facts["saved_step"]
        later = [step for step, _loss in steps if saved is not None and step > saved]
        reach = later[-1] if later else None
        left_s = self._until - time.monotonic()
        for lines in self._watched(paths):
            told = drill_verdict.told_of(lines)
            named = drill_start.leading(told, saved) if saved is not None and self._announces() else 0
            made = [step for step, _tells in told[named:]]
            if made and saved is not None and made[0] <= saved:
                return lines  # from the start again: more of it proves no more
            if made and (made[-1] >= reach if reach is not None else len(made) >= drill_moment.OVERLAP):
                return lines
        lines = self._steps(paths).lines()
        if drill_verdict.steps_of(lines):
            return lines  # slow, but what it made can be judged
        raise self._stepless(left_s)

    def _stepless(self, left_s: float) -> _Failed:
        why = (
            f"the relaunched command made no step in the {left_s:.0f} s that were left of {self._options.deadline_s:g}"
        )
        needed_s = self._to_first_step_s
        if left_s >= 2 * needed_s:
            return _Failed("no_progress", why)
        fix = "the drill needs a later deadline (train_drill_deadline_s)"
        return _Failed("unclear", f"{why}, and the first try told its first step after {needed_s:.0f} s; {fix}")

    # --- both -------------------------------------------------------------------------------------------------

    def _watched(self, paths: AttemptPaths) -> Iterator[list[dict[str, Any]]]:
        """The lines of the attempt, again and again until the deadline. An attempt that ends is the end of it."""
        start_at, why = 0.0, ""
        steps = self._steps(paths)
        while time.monotonic() < self._until:
            ended = attempt.exit_facts(attempt.read(paths.exit, "exit"))
            lines = steps.lines()
            if ended is not None and not attempt.is_alive(paths):
                lines = steps.lines()
                if paths.number > 1 and drill_verdict.steps_of(lines) and ended.child == 0:
                    yield lines
                    return
                raise self._ended(paths, ended)
            if attempt.is_alive(paths):
                yield lines
            elif not os.path.exists(paths.exit) and time.monotonic() >= start_at:
                # GPU memory of what was killed may take a moment to be free: the gate is asked again.
                why, start_at = self._start(), time.monotonic() + _START_AGAIN_S
            time.sleep(_POLL_S)
        if not os.path.exists(paths.claim):
            told = why or survey.read_daemon(self._box).get("why") or "nobody knows why"
            raise _Failed("not_started", f"the command could not be started: {told}")

    def _steps(self, paths: AttemptPaths) -> drill_steps.Steps:
        if paths.number not in self._tries:
            earlier = self._tries.get(paths.number - 1)
            self._tries[paths.number] = drill_steps.Steps(paths, self._run["progress"], earlier)
        return self._tries[paths.number]

    def _start(self) -> str:
        try:
            control.start(self._box, self._caller, control.StartOptions(self._drilled["run_id"]))
        except Refused as refused:
            return refused.what
        return ""

    def _ended(self, paths: AttemptPaths, ended: judge.ExitFacts) -> _Failed:
        if ended.child == 0:
            why = "the command came to its end before it could be killed: the run is too short"
            return _Failed("ended_early", why) if paths.number == 1 else self._ended_without_a_step()
        which = "the command" if paths.number == 1 else "the relaunched command"
        why = attempt.read(paths.exit, "exit").get("why") or f"exit code {ended.child}"
        return _Failed("trainer_failed", f"{which} failed: {why}")

    def _ended_without_a_step(self) -> _Failed:
        """A script that takes any checkpoint for the end of its work loses what was to come."""
        why = "the relaunched command ended well without making a step"
        saved, last = self._facts["saved_step"], self._facts["killed_at_step"]
        if saved is not None and last is not None and last <= saved:
            why += f", and step {saved}, the last one before the kill, was saved: it may have been the last of the run"
            return _Failed("ended_early", why)
        return _Failed("no_progress", why)

    def _paths(self, number: int) -> AttemptPaths:
        return self._box.attempt(self._drilled["run_id"], self._cell["id"], number)

    def _end_processes(self) -> None:
        """kill -9 to all of the drill at once, as the end of a machine would. Stopped first, so that nobody sees
        another one die and writes down how."""
        until = time.monotonic() + _SETTLE_S
        while True:
            alive = self._processes()
            if not alive:
                return
            if time.monotonic() >= until:
                pids = ", ".join(str(identity.pid) for identity in alive)
                raise Refused(LIVE, f"processes of the drill outlive SIGKILL: {pids}", "is a disk or a GPU hanging?")
            process.kill_all(alive, signal.SIGSTOP)
            process.kill_all(alive, signal.SIGKILL)
            time.sleep(_POLL_S)

    def _processes(self) -> list[process.Identity]:
        daemon = process.identity_from(attempt.read(self._box.daemon, "daemon").get("process"))
        found = [daemon] if daemon is not None else []
        run_id, cell = self._drilled["run_id"], self._cell["id"]
        for number in self._box.attempt_numbers(run_id, cell):
            paths = self._box.attempt(run_id, cell, number)
            shim = attempt.shim_of(paths)
            found += ([shim] if shim is not None else []) + attempt.members(paths)
        return [identity for identity in found if process.observe(identity) == process.ALIVE]

    def _log_tail(self) -> list[str]:
        for number in (2, 1):
            try:
                with open(self._paths(number).log, encoding="utf-8", errors="replace") as stream:
                    return stream.read().splitlines()[-_LOG_LINES:]
            except OSError:
                continue
        return []

    def _remove(self) -> None:
        """Remove what a drill made: nothing of it is a result of the run."""
        for name in ("box", "code"):
            shutil.rmtree(os.path.join(self._folder, name), ignore_errors=True)


def code_folder(run: dict[str, Any]) -> str:
    """The deployed code that the run's working folder lies in, else that folder itself."""
    workdir = os.path.normpath(str(run["workdir"]))
    above, found, _inner = workdir.partition(os.sep + str(run["code_sha256"]))
    return above + found if found else workdir


def drill_record(run: dict[str, Any], cell: dict[str, Any], code: str) -> dict[str, Any]:
    """The run as it is drilled: the same command and cell in places of its own, with nothing that leaves the box."""
    source = code_folder(run)

    def moved(text: str) -> str:
        return text.replace(source, code)

    environment = {name: moved(value) for name, value in run["env"].items()}
    # A tracker would show each drill as a run.
    environment.update({VARIABLE: "1", "WANDB_MODE": "disabled"})
    return {
        **{key: value for key, value in run.items() if key != "schema"},
        "run_id": f"{run['run_id'][:57]}-drill",
        "command": [moved(word) for word in run["command"]],
        "workdir": moved(os.path.normpath(run["workdir"])),
        "env": environment,
        "cells": [{**cell, "args": [moved(word) for word in cell["args"]]}],
        "durable": {"kind": "none", "path": ""},
        "preemption": {**run["preemption"], "source": "", "url": ""},
        "retries": {**run["retries"], "max": 0},
    }
