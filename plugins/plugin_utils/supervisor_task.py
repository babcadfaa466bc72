# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the task ``supervisor`` does, from the controller: no module is carried to the box, whose Python would have to
load Ansible's own code first; a verb and the look after it are one command."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import batch_options
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.supervisor_client import (
    SupervisorClient,
    answers,
    failed_cell,
)
from ansible_collections.tenant.gpu.plugins.plugin_utils.strangers_answer import form_is_checked

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
NO_PROGRAM = 72
_REGISTER = ("register", "--run-file", "-")
# The program that was named; else the one that the box itself uses at its start, else the newest one.
_ASK = r"""
python=$1 root=$2 program=$3 look=$4
shift 4
if [ -z "$program" ]; then
    for name in $(grep -o 'supervisor-[0-9a-f]\{12\}[.]pyz' "$root/bin/resume-all" 2>/dev/null); do
        [ -f "$root/bin/$name" ] && program=$root/bin/$name && break
    done
fi
[ -n "$program" ] || program=$(ls -t "$root"/bin/supervisor-*.pyz 2>/dev/null | head -n 1)
[ -f "$program" ] || exit 72
[ -n "$look" ] || exec $python -I "$program" --root "$root" "$@"
$python -I "$program" --root "$root" "$@" || exit $?
exec $python -I -S "$program" --root "$root" status </dev/null
"""


class NoProgram(Exception):
    """Nothing was deployed to the box yet."""


class BoxClient(SupervisorClient):
    """The supervisor's program from afar.

    :param run_command: runs argv on the box.
    :param python: its interpreter there.
    :param program: its path there; empty for the one that is there.
    """

    def __init__(
        self,
        run_command: Callable[[list[str], str], tuple[int, str, str]],
        python: str,
        program: str,
        tenant_root: str,
        epoch: int | None = None,
    ) -> None:
        def asked(argv: list[str], text: str) -> tuple[int, str, str]:
            code, out, err = run_command(argv, text)
            if code == NO_PROGRAM:
                raise NoProgram
            return code, out, err

        self._start = ["/bin/sh", "-c", _ASK, "supervisor", python, tenant_root, program]
        super().__init__(asked, [*self._start, ""], epoch)

    def call_and_look(
        self, verb: str, *options: str, check: bool = False, stdin: str = ""
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the verb answers, and the status after it.

        :raises TenantFailure: what the supervisor refused.
        """
        code, out, err = self._run_command([*self._start, "look", *self._words(verb, options, check)], stdin)
        answer, looked = [*answers(out)[-2:], None, None][:2]
        # With a status behind it the verb itself did what was asked, whatever the second program ended with.
        found = self._checked(verb, 0 if looked is not None else code, answer, err)
        return found, looked if looked is not None and "error" not in looked else self.status()


class Task:
    """Brings the supervisor of a box into the state that a task asks for.

    :param params: those of the task.
    :param run_command: runs argv on the box, with what goes to its stdin.
    :param python: the interpreter there.
    """

    def __init__(
        self, params: dict[str, Any], run_command: Callable[[list[str], str], tuple[int, str, str]], python: str
    ) -> None:
        self._params = params
        self._run_id = params["run_id"] or str((params["run"] or {}).get("run_id") or "")
        self._client = BoxClient(run_command, python, params["pyz"] or "", params["tenant_root"], params["epoch"])
        self._before: dict[str, Any] = {}
        self._after: dict[str, Any] = {}
        self._more: dict[str, Any] = {}

    def act(self, check: bool) -> dict[str, Any]:
        """The task's result: ``changed``, ``diff``, ``supervisor``. With ``check`` everything is predicted.

        :raises TenantFailure: what the supervisor refused, or why the run does not live.
        """
        state = self._params["state"]
        try:
            found = self._perform(state, check)
        except NoProgram:
            return self._without_program(state, check)
        return {
            "changed": bool(self._after),
            "diff": {"before": self._before, "after": self._after},
            "supervisor": dict(found, runs=[run for run in found["runs"] if self._run_id in ("", run["run_id"])]),
            **self._more,
        }

    def _perform(self, state: str, check: bool) -> dict[str, Any]:
        """Do it; the status after it, of all runs."""
        registration: dict[str, Any] = {"check": check, "stdin": json.dumps(self._params["run"])}
        if state == "registered":
            answer, found = self._client.call_and_look(*_REGISTER, **registration)
            self._note(answer)
            return found
        if state == "started":
            if self._params["run"]:
                self._note(self._client.call(*_REGISTER, **registration))
            return self._start(check)
        verbs = {
            "stopped": ["stop", *self._run_option(), *self._grace()],
            "held": ["hold", *self._stop_live(), *self._grace()],
            "sealed": ["seal", *self._stop_live(), *self._grace()],
            "unsealed": ["unseal"],
            "reconciled": ["resume-all"],
        }
        if state in verbs:
            answer, found = self._client.call_and_look(*verbs[state], check=check)
            self._note(answer)
            self._more.update({key: answer[key] for key in ("seal", "reason") if key in answer})
            return found
        return self._client.status(self._run_id)

    def _start(self, check: bool) -> dict[str, Any]:
        if check and self._after.get("runs"):
            # The registration was only predicted, so the supervisor cannot be asked what a start would do.
            self._note({"before": {"supervisor": "absent"}, "after": {"supervisor": "running"}})
            return self._client.status(self._run_id)
        options = [*self._run_option(), "--detach", self._params["detach"]]
        for word in self._detach_words():
            # One word, because argparse takes a leading dash for an option of its own.
            options.append(f"--detach-option={word}")
        options += self._array_options()
        options += ["--retry-failed"] if self._params["retry_failed"] else []
        launch = self._params.get("launch")
        options += ["--launch-file", "-"] if launch else []
        answer, found = self._client.call_and_look(
            "start", *options, check=check, stdin=json.dumps(launch) if launch else ""
        )
        self._note(answer)
        waits = self._after.get("supervisor") == "pending"
        if check or waits or self._params["detach"] == "none" or not self._params["live_within_s"]:
            return found
        return self._client.prove_live(self._run_id, self._params["live_within_s"], found)

    def _detach_words(self) -> list[str]:
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
            with form_is_checked(failure.box):
                failed = failed_cell(found, self._run_id)
                result["supervisor"] = found
                result["log_tail"] = self._client.log_tail(*failed) if failed else []
        except (TenantFailure, NoProgram):
            # The first failure is the one to tell.
            return failure.as_result()
        return result
