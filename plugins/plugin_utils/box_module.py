# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module that runs on the rented box by Ansible's own way: no fact is taken from it that it is not there to tell."""

from __future__ import annotations

from typing import Any, ClassVar

from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.plugin_utils.readable_action import ReadableAction, errors_are_readable
from ansible_collections.tenant.gpu.plugins.plugin_utils.silence import ANSWER_S, answered_within
from ansible_collections.tenant.gpu.plugins.plugin_utils.strangers_answer import believed


class BoxModule(ReadableAction):
    """``FACTS`` names the facts that the module tells, ``WITHIN_S`` is how many seconds it may take."""

    FACTS: ClassVar[tuple[str, ...]] = ()
    WITHIN_S: ClassVar[float] = ANSWER_S
    _supports_check_mode = True
    _supports_async = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        box = str((task_vars or {}).get("inventory_hostname", ""))
        try:
            with errors_are_readable(), answered_within(self, self.WITHIN_S, box):
                return believed(self._execute_module(task_vars=task_vars, wrap_async=self._task.async_val), self.FACTS)
        except TenantFailure as failure:
            return dict(failure.as_result(), failed=True)
