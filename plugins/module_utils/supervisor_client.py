# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Talks to the supervisor program on the box it runs on: one verb per call, JSON back, refusals as failures."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import time
from typing import Any, Callable

from .bounded_json import MOST_VALUES, values_in
from .box import refusal
from .failures import TenantFailure

_FAILURE_KINDS = {
    refusal.USAGE: "config",
    refusal.ENVIRONMENT: "config",
    refusal.INPUTS: "evidence_missing",
    refusal.DISK: "probe_refused",
    refusal.HELD: "lease_held",
    refusal.MISMATCH: "config",
    refusal.SEALED: "gate_refused",
    refusal.LIVE: "gate_refused",
    refusal.ARTIFACT_MISSING: "evidence_missing",
    refusal.DURABLE_FAILED: "evidence_missing",
    refusal.ARTIFACT_INVALID: "evidence_missing",
}
_PROGRAM_NAME = re.compile(r"supervisor-[0-9a-f]{12}\.pyz")
_SETTLED_S = 2.0
_LONGEST_PAUSE_S = 3.0
_LOG_LINES = 30


def find_program(tenant_root: str) -> str:
    """The supervisor that the box itself uses at its start, else the newest one; empty when none is there."""
    folder = os.path.join(tenant_root, "bin")
    try:
        with open(os.path.join(folder, "resume-all"), encoding="utf-8", errors="replace") as stream:
            named = _PROGRAM_NAME.findall(stream.read())
    except OSError:
        named = []
    for name in named:
        if os.path.isfile(os.path.join(folder, name)):
            return os.path.join(folder, name)
    found = glob.glob(os.path.join(glob.escape(folder), "supervisor-*.pyz"))
    return max(found, key=os.path.getmtime) if found else ""


def program_argv(python: str, program: str, tenant_root: str) -> list[str]:
    """What starts a program on the box that this runs on."""
    return [python, "-I", program, "--root", tenant_root]


class SupervisorClient:
    """:param run_command: takes argv and stdin, gives exit code, stdout and stderr.
    :param argv: what starts the program, before the verb."""

    def __init__(
        self,
        run_command: Callable[[list[str], str], tuple[int, str, str]],
        argv: list[str],
        epoch: int | None = None,
    ) -> None:
        self._run_command = run_command
        self._argv = argv
        self._epoch = [] if epoch is None else ["--epoch", str(epoch)]
        self._box = ""

    def call(self, verb: str, *options: str, check: bool = False, stdin: str = "") -> dict[str, Any]:
        """What the verb answers. :raises TenantFailure: what the supervisor refused, in its own words."""
        code, out, err = self._run_command([*self._argv, *self._words(verb, options, check)], stdin)
        return self._checked(verb, code, parse(out), err)

    def _words(self, verb: str, options: tuple[str, ...], check: bool) -> list[str]:
        return [*self._epoch, *(["--check"] if check else []), verb, *options]

    def _checked(self, verb: str, code: int, answer: dict[str, Any] | None, err: str) -> dict[str, Any]:
        if code == 0 and answer is not None and "error" not in answer:
            return answer
        raise self._failure(verb, code, answer, err)

    def _who(self, verb: str) -> str:
        """The box that answers; asked for only once there is a failure to name it in. Empty when it does not say."""
        if not self._box and verb != "status":
            with contextlib.suppress(TenantFailure):
                self.status()
        return self._box

    def _failure(self, verb: str, code: int, answer: dict[str, Any] | None, err: str) -> TenantFailure:
        box = self._who(verb)
        if answer is None or "error" not in answer:
            text = (err.strip().splitlines() or ["no answer"])[-1][:300]
            what = f"the supervisor's verb {verb} ended with exit code {code}: {text}"
            return TenantFailure("training_failed", what, box, fix="read supervisor.log below the tenant root")
        told = answer.get("exit", code)
        kind = _FAILURE_KINDS.get(told if isinstance(told, int) else code, "training_failed")
        safe = "nothing was started and nothing was deleted"
        return TenantFailure(kind, str(answer["error"]), box, safe=safe, fix=str(answer.get("fix", "")))

    def status(self, run_id: str = "") -> dict[str, Any]:
        found = self.call("status", *(["--run", run_id] if run_id else []))
        self._box = str(found.get("box") or "")
        return found

    def log_tail(self, run_id: str, cell: str) -> list[str]:
        lines = self.call("log", "--run", run_id, "--cell", cell, "--tail", str(_LOG_LINES)).get("lines", [])
        return [str(line) for line in lines]

    def prove_live(self, run_id: str, within_s: float, seen: dict[str, Any] | None = None) -> dict[str, Any]:
        """Wait until the run lives, waits its turn behind a live cell, or is done; returns the status that shows it.

        :param seen: the status right after the start, where it is known.
        :raises TenantFailure: it failed, cannot start, or shows no sign of life within ``within_s`` seconds.
        """
        until = time.monotonic() + within_s
        pause = 0.3
        while True:
            found, seen = seen or self.status(), None
            verdict, why = judge_start(found, run_id)
            if verdict == "live":
                return found
            if verdict == "dead":
                raise TenantFailure("training_failed", why, self._box, fix="read the log of the cell, correct, deploy")
            if time.monotonic() >= until:
                what = f"no cell of run {run_id or 'any'} came to life within {within_s:g} s ({why})"
                raise TenantFailure("training_failed", what, self._box, fix="read supervisor.log on the box")
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE_S)


def judge_start(status: dict[str, Any], run_id: str = "") -> tuple[str, str]:
    """``live``, ``dead`` or ``wait``, and why, from one status after a start. Without ``run_id``, over all runs."""
    runs = [run for run in status["runs"] if run_id in ("", run["run_id"])]
    if not runs:
        return "dead", f"run {run_id} is not registered"
    cells = [cell for run in status["runs"] for cell in run["cells"]]
    for run in runs:
        if run["state"] in ("failed", "blocked"):
            return "dead", f"run {run['run_id']} is {run['state']}: {_why(run)}"
    if all(run["state"] == "done" for run in runs):
        return "live", "done"
    if any(_shows_life(cell) for cell in cells):
        return "live", "a cell is running"
    if any(run.get("waits_for") for run in runs):
        # One that has its turn is there in a moment; for a turn, nobody stays here.
        begins = (status.get("batch") or {}).get("meaning") == "lives"
        return ("wait", "its job begins") if begins else ("live", "it waits for its turn")
    if not status["daemon"]["alive"] and not any(cell["liveness"] in ("alive", "stalled") for cell in cells):
        return "dead", f"the supervisor ended: {status['daemon'].get('why') or 'nobody knows why'}"
    return "wait", "the supervisor is starting a cell"


def _shows_life(cell: dict[str, Any]) -> bool:
    """A process that just started proves nothing: wrong arguments end a trainer within its first second."""
    if cell["state"] in ("verifying", "copying"):
        return True
    lives = cell["state"] == "running" and cell["liveness"] in ("alive", "stalled")
    return lives and (cell.get("step") is not None or (cell.get("running_s") or 0) >= _SETTLED_S)


def _why(run: dict[str, Any]) -> str:
    told = [*(run.get("blocked_by") or []), *filter(None, [run.get("halted")])]
    told += [f"cell {cell['cell']}: {cell['why']}" for cell in run["cells"] if cell.get("why")]
    return "; ".join(told) or "no reason was recorded"


def failed_cell(status: dict[str, Any], run_id: str) -> tuple[str, str] | None:
    """(run, cell) of the first failed cell, whose log explains; None when there is none."""
    for run in status["runs"]:
        for cell in run["cells"]:
            if run_id in ("", run["run_id"]) and cell["state"] == "failed":
                return run["run_id"], cell["cell"]
    return None


def parse(text: str) -> dict[str, Any] | None:
    """The object that a verb printed; None where it printed none."""
    found = answers(text)
    return found[-1] if found else None


def answers(text: str) -> list[dict[str, Any]]:
    """The objects among the lines of a command, one for each verb; whatever else a login prints is none."""
    found: list[dict[str, Any]] = []
    left = MOST_VALUES
    for line in text.splitlines():
        if line.lstrip().startswith("{"):
            left -= values_in(line)
            if left < 0:
                break
            with contextlib.suppress(ValueError, RecursionError):
                found.append(json.loads(line))
    return found
