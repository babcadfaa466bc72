# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import shlex
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box.names import printable
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.tenant.gpu.plugins.plugin_utils.silence import ANSWER_S, WORK_S

_LONGEST = 4000
_NO_SUCH_PROGRAM = 127
# It answers before the program can end the connection. Where the connection has a terminal, its end hangs up on what
# has just been begun; by nohup, that would come too late to be held off now and then.
_DETACH = 'command -v "$1" >/dev/null || exit 127; trap "" HUP; "$@" </dev/null >/dev/null 2>&1 &'


class ActionModule(ControllerAction):
    """Runs a program by the shell of the box: nothing that it prints can be a result of Ansible's."""

    A_BOX_SPEAKS = True
    ARGUMENT_SPEC = {
        "argv": {"type": "list", "elements": "str", "required": True},
        "detach": {"type": "bool", "default": False},
        "expected": {"type": "list", "elements": "int", "default": [0]},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        self._box = str(task_vars.get("inventory_hostname", ""))
        argv = params["argv"]
        if not argv:
            raise self._config("argv names no program", "nothing was run", "give the program and its arguments")
        if self.check_mode:
            return {"changed": True, "skipped": True, "msg": f"{shlex.join(argv)} would be run"}
        words = ["/bin/sh", "-c", _DETACH, "sh", *argv] if params["detach"] else argv
        status, stdout, stderr = self._run(words, ANSWER_S if params["detach"] else WORK_S)
        if status not in params["expected"]:
            raise self._ended_with(status, argv, _last_line(stderr) or _last_line(stdout))
        # Unless it is told otherwise, Ansible takes any status but 0 for a failure.
        return {"changed": True, "failed": False, "rc": status, "stdout": stdout[:_LONGEST]}

    def _run(self, words: list[str], within_s: float) -> tuple[int, str, str]:
        """In the environment that the play gives to what runs on the box."""
        command = " ".join(part for part in (self._compute_environment_string(), shlex.join(words)) if part)
        return self.without_terminal(command, within_s=within_s)

    def _ended_with(self, status: int, argv: list[str], said: str) -> TenantFailure:
        if status == _NO_SUCH_PROGRAM:
            fix = "see which image the box was made from, or do by hand what that program would have done"
            return self._config(f"it has no program {argv[0]}", "nothing was run", fix)
        what = f"{shlex.join(argv)} ended with {status}: {said or 'it said nothing'}"
        return self._config(what, "what the program had done until then stays", "log in and run it by hand to see why")

    def _config(self, what: str, safe: str, fix: str) -> TenantFailure:
        return TenantFailure("config", what, box=self._box, safe=safe, fix=fix)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return printable(lines[-1].strip())[:_LONGEST] if lines else ""
