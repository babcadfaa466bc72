# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shape of an action plugin that asks the box something, without a module of Ansible."""

from __future__ import annotations

import shlex
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import far_end
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import printable
from ansible_collections.tenant.gpu.plugins.module_utils.failures import EXIT_CODES, TenantFailure
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import ControllerAction

_LONGEST = 1000


class AskingAction(ControllerAction):
    """Speaks to our programs over the play's connection, and to our modules there by :meth:`ask_box`; for those a
    subclass says ``far_end.packed(name)`` when it is imported, so that it is done once for all boxes.
    """

    def run_on_box(self, argv: list[str], text: str) -> tuple[int, str, str]:
        """A program there, with what it reads; its exit code, stdout and stderr."""
        # Data on stdin even where there is none: a program that reads must not wait for a terminal.
        done = self._low_level_execute_command(shlex.join(argv), in_data=text.encode(), executable="/bin/sh")
        return done["rc"], done["stdout"], done["stderr"]

    def ask_box(self, name: str, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """What ``answer`` of the module ``name`` says on the box, over the play's connection.

        :raises TenantFailure: what the box refused, or why it did not answer.
        """
        box, python = str(task_vars.get("inventory_hostname", "")), self.box_python(task_vars)
        command = shlex.join([*shlex.split(python), "-I", "-S", "-c", far_end.PROGRAM])
        asked = far_end.question(name, params, self.check_mode)
        done = self._low_level_execute_command(command, in_data=asked, executable="/bin/sh")
        try:
            told = far_end.read(done["rc"], done["stdout"], done["stderr"])
        except far_end.NoAnswer as error:
            raise TenantFailure(
                "config",
                f"{python} does not run our program on it: {printable(str(error))[:_LONGEST]}",
                box=box,
                safe="what it had begun, the next run of this task goes on with",
                fix="see that ansible_python_interpreter names a Python of 3.8 or newer there, and the disk of the box",
            ) from error
        if told.get("failed"):
            raise _refused(told, box)
        return told


def _refused(told: dict[str, Any], box: str) -> TenantFailure:
    """What a box says that failed, in its own words: a stranger's."""
    known = told.get("failure")
    failure = known if isinstance(known, dict) else {"what": told.get("msg", "no reason given")}
    what, safe, fix = (printable(str(failure.get(name, "")))[:_LONGEST] for name in ("what", "safe", "fix"))
    kind = failure.get("kind")
    return TenantFailure(kind if kind in EXIT_CODES else "config", what, box, safe=safe, fix=fix)
