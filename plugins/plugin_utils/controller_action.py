# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shape of an action plugin that works on the controller and speaks when it fails."""

from __future__ import annotations

import gc
import shlex
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from ansible_collections.tenant.gpu.plugins.module_utils.box.names import UnsafeName
from ansible_collections.tenant.gpu.plugins.module_utils.box.records import RecordError
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity
from ansible_collections.tenant.gpu.plugins.plugin_utils.readable_action import ReadableAction, errors_are_readable
from ansible_collections.tenant.gpu.plugins.plugin_utils.silence import ANSWER_S, answered_within
from ansible_collections.tenant.gpu.plugins.plugin_utils.strangers_answer import told_readably

# Each task of each box is a fork of this process, which is as large by now as it gets. A garbage collection in a fork
# would copy all of it, only to find that nothing is to be had.
gc.freeze()

# Documented in the fragment tenant.gpu.box_identity.
BOX_IDENTITY_SPEC: dict[str, dict[str, Any]] = {
    "project": {"type": "str", "required": True},
    "box": {"type": "str", "required": True},
    "generation": {"type": "int", "required": True},
    "provider_id": {"type": "str", "required": True},
    "state_dir": {"type": "path", "required": True},
}


def box_identity_of(params: dict[str, Any]) -> BoxIdentity:
    return BoxIdentity(params["project"], params["box"], params["generation"], params["provider_id"])


class ControllerAction(ReadableAction):
    """Subclasses give ``ARGUMENT_SPEC`` and ``act(params, task_vars) -> result``.

    ``A_BOX_SPEAKS``: what a box answered is in the result. Else it holds our own words to the letter, such as commands.
    """

    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {}
    VALIDATION: ClassVar[dict[str, Any]] = {}
    A_BOX_SPEAKS: ClassVar[bool] = False
    TRANSFERS_FILES = False
    # The box that the task is for, as the inventory names it.
    host = ""
    _supports_check_mode = True
    _supports_diff = True

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    @property
    def check_mode(self) -> bool:
        return bool(self._task.check_mode)

    def box_python(self, task_vars: Mapping[str, Any]) -> str:
        """The interpreter that modules use on this box."""
        host = self._task.delegate_to
        variables = (task_vars.get("ansible_delegated_vars") or {}).get(host, task_vars) if host else task_vars
        named = self._templar.template(variables.get("ansible_python_interpreter"))
        if not named or str(named).startswith("auto"):
            named = (variables.get("ansible_facts") or {}).get("discovered_interpreter_python")
        return str(named or "python3")

    def answered_within(self, seconds: float, box: str = "") -> AbstractContextManager[None]:
        """Round a question to the box: after ``seconds`` without an answer it fails as Silent."""
        return answered_within(self, seconds, box or self.host)

    def run_on_box(self, argv: list[str], text: str, within_s: float = ANSWER_S) -> tuple[int, str, str]:
        """A program there, with what it reads; its exit code, stdout and stderr.

        :raises Silent: it does not end ``within_s`` seconds.
        """
        return self.without_terminal(shlex.join(argv), text.encode(), within_s)

    def without_terminal(self, command: str, data: bytes = b"", within_s: float = ANSWER_S) -> tuple[int, str, str]:
        """A command of the box's shell, with what its program reads; its exit code, stdout and stderr.

        :raises Silent: it does not end ``within_s`` seconds.
        """
        if not data:
            # For Ansible's ssh no data is the wish for a terminal, and on one stderr comes in among the lines of
            # stdout: a warning of the login's shell would spoil every answer. So the shell is sent a byte that the
            # program does not see.
            command, data = f"{command} </dev/null", b"\n"
        with self.answered_within(within_s):
            done = self._low_level_execute_command(command, in_data=data, executable="/bin/sh")
        return done["rc"], done["stdout"], done["stderr"]

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        self.host = str(variables.get("inventory_hostname", ""))
        params = self.validate_argument_spec(argument_spec=self.ARGUMENT_SPEC, **self.VALIDATION)[1]
        try:
            with errors_are_readable():
                return self._shown(self.act(params, variables), self.host)
        except TenantFailure as failure:
            return dict(told_readably(failure.as_result()), failed=True)
        except (RecordError, UnsafeName) as error:
            failure = TenantFailure(
                "config", str(error), box=self.host, safe="nothing was changed", fix="see the file or name it mentions"
            )
            return dict(failure.as_result(), failed=True)

    def _shown(self, result: dict[str, Any], box: str) -> dict[str, Any]:
        """A failure is shown as a whole, and a difference is wherever somebody asks for it."""
        if self.A_BOX_SPEAKS or result.get("failed"):
            return told_readably(result, box)
        return {**result, **told_readably({key: result[key] for key in ("diff",) if key in result}, box)}
