# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible.plugins.action.async_status import ActionModule as AsyncStatus
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.plugin_utils.readable_action import ReadableAction, errors_are_readable
from ansible_collections.tenant.gpu.plugins.plugin_utils.silence import ANSWER_S, answered_within
from ansible_collections.tenant.gpu.plugins.plugin_utils.strangers_answer import believed


class ActionModule(ReadableAction, AsyncStatus):
    """Looks for what a detached proof answered, and believes no fact of it: the file lies on the box."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            box = str((task_vars or {}).get("inventory_hostname", ""))
            with errors_are_readable(), answered_within(self, ANSWER_S, box):
                return believed(super().run(tmp, task_vars))
        except TenantFailure as failure:
            return dict(failure.as_result(), failed=True)
