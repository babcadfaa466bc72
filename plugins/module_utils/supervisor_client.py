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

from .box import refusal
from .failures import TenantFailure

STATES = ("status", "registered", "started", "stopped", "held", "sealed", "unsealed", "reconciled")
NOT_DEPLOYED: dict[str, Any] = {
    "project": None,
    "box": None,
    "generation": None,
    "provider_id": None,
    "daemon": {"alive": False, "pid": None},
    "sealed": False,
    "desired": "run",
    "epoch": 0,
    "runs": [],
    "health": None,
    "problems": [],
}
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


class SupervisorClient:
    """:param run_command: takes argv and stdin, gives exit code, stdout and stderr.
    :param python: the interpreter that runs the program, usually the one that runs this module."""

    def __init__(
        self,
        run_command: Callable[[list[str], str], tuple[int, str, str]],
        python: str,
        program: str,
        tenant_root: str,
        epoch: int | None = None,
    ) -> None:
        self._run_command = run_command
        self._argv = [python, "-I", program, "--root", tenant_root]
        self._epoch = [] if epoch is None else ["--epoch", str(epoch)]
        self._box = ""

    def call(self, verb: str, *options: str, check: bool = False, stdin: str = "") -> dict[str, Any]:
        """What the verb answers. :raises TenantFailure: what the supervisor refused, in its own words."""
        argv = [*self._argv, *self._epoch, *(["--check"] if check else []), verb, *options]
        code, out, err = self._run_command(argv, stdin)
        answer = _parse(out)
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
        kind = _FAILURE_KINDS.get(int(answer.get("exit", code)), "training_failed")
        safe = "nothing was started and nothing was deleted"
        return TenantFailure(kind, str(answer["error"]), box, safe=safe, fix=str(answer.get("fix", "")))

    def status(self, run_id: str = "") -> dict[str, Any]:
        found = self.call("status", *(["--run", run_id] if run_id else []))
        self._box = str(found.get("box") or "")
        return found

    def log_tail(self, run_id: str, cell: str) -> list[str]:
        lines = self.call("log", "--run", run_id, "--cell", cell, "--tail", str(_LOG_LINES)).get("lines", [])
        return [str(line) for line in lines]

    def prove_live(self, run_id: str, within_s: float) -> dict[str, Any]:
        """Wait until the run lives, waits its turn behind a live cell, or is done; returns the status that shows it.

        :raises TenantFailure: it failed, cannot start, or shows no sign of life within ``within_s`` seconds.
        """
        until = time.monotonic() + within_s
        pause = 0.3
        while True:
            found = self.status()
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
    told = list(run.get("blocked_by") or [])
    told += [f"cell {cell['cell']}: {cell['why']}" for cell in run["cells"] if cell.get("why")]
    return "; ".join(told) or "no reason was recorded"


def failed_cell(status: dict[str, Any], run_id: str) -> tuple[str, str] | None:
    """(run, cell) of the first failed cell, whose log explains; None when there is none."""
    for run in status["runs"]:
        for cell in run["cells"]:
            if run_id in ("", run["run_id"]) and cell["state"] == "failed":
                return run["run_id"], cell["cell"]
    return None


def _parse(text: str) -> dict[str, Any] | None:
    try:
        answer = json.loads(text)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


# --- what the module does -------------------------------------------------------------------------------------


class Task:
    """Brings the supervisor of this box into the state that a task asks for.

    :param params: the module's parameters.
    """

    def __init__(
        self, params: dict[str, Any], run_command: Callable[[list[str], str], tuple[int, str, str]], python: str
    ) -> None:
        self._params = params
        self._run_id = params["run_id"] or str((params["run"] or {}).get("run_id") or "")
        self._program = params["pyz"] or find_program(params["tenant_root"])
        self._client = SupervisorClient(run_command, python, self._program, params["tenant_root"], params["epoch"])
        self._before: dict[str, Any] = {}
        self._after: dict[str, Any] = {}
        self._more: dict[str, Any] = {}

    def act(self, check: bool) -> dict[str, Any]:
        """The module's result: ``changed``, ``diff``, ``supervisor``. With ``check`` everything is predicted.

        :raises TenantFailure: what the supervisor refused, or why the run does not live.
        """
        state = self._params["state"]
        if not self._program or not os.path.isfile(self._program):
            return self._without_program(state, check)
        found = self._perform(state, check)
        return {
            "changed": bool(self._after),
            "diff": {"before": self._before, "after": self._after},
            "supervisor": self._client.status(self._run_id) if found is None else found,
            **self._more,
        }

    def _perform(self, state: str, check: bool) -> dict[str, Any] | None:
        if state in ("registered", "started") and self._params["run"]:
            self._note(self._client.call("register", "--run-file", "-", check=check, stdin=self._run_text()))
        if state == "started":
            return self._start(check)
        verbs = {
            "stopped": ["stop", *self._run_option(), *self._grace()],
            "held": ["hold", *self._stop_live(), *self._grace()],
            "sealed": ["seal", *self._stop_live(), *self._grace()],
            "unsealed": ["unseal"],
            "reconciled": ["resume-all"],
        }
        if state in verbs:
            answer = self._client.call(*verbs[state], check=check)
            self._note(answer)
            self._more.update({key: answer[key] for key in ("seal", "reason") if key in answer})
        return None

    def _start(self, check: bool) -> dict[str, Any] | None:
        if check and self._after.get("runs"):
            # The registration was only predicted, so the supervisor cannot be asked what a start would do.
            self._note({"before": {"supervisor": "absent"}, "after": {"supervisor": "running"}})
            return None
        options = [*self._run_option(), "--detach", self._params["detach"]]
        for word in self._detach_words():
            # One word, because argparse takes a leading dash for an option of its own.
            options.append(f"--detach-option={word}")
        options += self._array_options()
        options += ["--retry-failed"] if self._params["retry_failed"] else []
        launch = self._params.get("launch")
        options += ["--launch-file", "-"] if launch else []
        self._note(self._client.call("start", *options, check=check, stdin=json.dumps(launch) if launch else ""))
        waits = self._after.get("supervisor") == "pending"
        if check or waits or self._params["detach"] == "none" or not self._params["live_within_s"]:
            return None
        found = self._client.prove_live(self._run_id, self._params["live_within_s"])
        return dict(found, runs=[run for run in found["runs"] if self._run_id in ("", run["run_id"])])

    def _detach_words(self) -> list[str]:
        # Only here: it takes thirty files along, which a box compiles anew for every task.
        from . import batch_options

        given = list(self._params["detach_options"])
        batch = self._params.get("batch") or {}
        if self._params["detach"] == "sbatch":
            return batch_options.words(batch, self._params.get("gpus") or 0, given, self._params.get("nodes") or 0)
        if batch:
            what = f"options of a batch job were given, and the box detaches by {self._params['detach']}"
            raise TenantFailure("config", what, safe="nothing was started", fix="set platform_detach: sbatch")
        return given

    def _array_options(self) -> list[str]:
        """How many tasks a job array has is the box's affair, which knows what is left to do."""
        batch = self._params.get("batch") or {}
        found = []
        for name in ("array_tasks", "array_limit"):
            found += [f"--{name.replace('_', '-')}", str(batch[name])] if batch.get(name) else []
        return found

    def _without_program(self, state: str, check: bool) -> dict[str, Any]:
        """Before deploy: nothing to see, nothing to stop; in check mode the deploy is about to bring the program."""
        result = {"changed": False, "diff": {"before": {}, "after": {}}, "supervisor": dict(NOT_DEPLOYED)}
        if state in ("status", "stopped", "reconciled", "unsealed"):
            return result
        if check and state in ("registered", "started"):
            after = {"runs": [self._run_id], "supervisor": "running" if state == "started" else "absent"}
            diff = {"before": {"runs": [], "supervisor": "absent"}, "after": after}
            return dict(result, changed=True, diff=diff)
        raise TenantFailure(
            "config",
            f"there is no supervisor in {self._params['tenant_root']}/bin",
            safe="nothing runs on this box by our doing",
            fix="run the deploy playbook first",
        )

    def _note(self, answer: dict[str, Any]) -> None:
        self._before.update(answer.get("before", {}))
        self._after.update(answer.get("after", {}))

    def _run_text(self) -> str:
        return json.dumps(self._params["run"])

    def _run_option(self) -> list[str]:
        return ["--run", self._run_id] if self._run_id else []

    def _grace(self) -> list[str]:
        return [] if self._params["grace_s"] is None else ["--grace-s", str(self._params["grace_s"])]

    def _stop_live(self) -> list[str]:
        return ["--stop"] if self._params["stop_live"] else []

    def explain(self, failure: TenantFailure) -> dict[str, Any]:
        """The failure as a result, with the end of the failed cell's log when there is one."""
        result = failure.as_result()
        try:
            found = self._client.status(self._run_id)
            failed = failed_cell(found, self._run_id)
            result["supervisor"] = found
            result["log_tail"] = self._client.log_tail(*failed) if failed else []
        except TenantFailure:
            # The first failure is the one to tell.
            return failure.as_result()
        return result
