# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module of a rental market, done in the controller's own process where it would run on the controller anyway.

As a process of its own each such task packs itself up, starts a Python and imports everything anew: half a second of a
processor, for every box.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from ansible.module_utils.common.parameters import remove_values
from ansible.plugins.action.normal import ActionModule as RunsModule
from ansible.utils.display import Display
from ansible_collections.tenant.gpu.plugins.module_utils import rental_options

display = Display()


class RentalAction(RunsModule):
    """Subclasses name what the module of the same name has: ``ACT``, ``SPEC`` with the shared options, ``RULES``.

    The module itself runs where the task asks for what only a process has: another machine, another user, an
    environment, to be left alone while it works.
    """

    ACT: ClassVar[Callable[[Any], dict[str, Any]]]
    SPEC: ClassVar[rental_options.Options]
    RULES: ClassVar[Mapping[str, Any]] = {}

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        if self._needs_a_process():
            answer: dict[str, Any] = super().run(tmp, task_vars)
            return answer
        validated, params = self.validate_argument_spec(argument_spec=self.SPEC, **self.RULES)
        caller = _Caller(_plain(params), bool(self._task.check_mode))
        found = rental_options.outcome(type(self).ACT, caller)
        # As plain as if it had come from another process: nothing in it is a template, no secret option is told.
        result: dict[str, Any] = remove_values(_plain(found), validated._no_log_values)
        return result

    def _needs_a_process(self) -> bool:
        elsewhere = self._connection.transport != "local" or self._connection.become is not None
        return elsewhere or bool(self._task.async_val) or any(self._task.environment or [])


class _Caller:
    """The face of a module towards ``act``."""

    def __init__(self, params: dict[str, Any], check_mode: bool) -> None:
        self.params, self.check_mode = params, check_mode

    def warn(self, warning: str) -> None:
        display.warning(warning)


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """``value`` without Ansible's tags, which say what may be templated and from where it is."""
    plain: dict[str, Any] = json.loads(json.dumps(value))
    return plain
