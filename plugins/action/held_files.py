# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box.names import check_name
from ansible_collections.tenant.gpu.plugins.plugin_utils.box_call import BoxCall
from ansible_collections.tenant.gpu.plugins.plugin_utils.strangers_answer import fields

FAR_END = "held_task.let_go"


class ActionModule(BoxCall):
    """Removes links, never what they lead to."""

    WORKS = (FAR_END,)

    ARGUMENT_SPEC = {
        "tenant_root": {"type": "path", "required": True},
        "run_id": {"type": "str", "required": True},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        check_name("run id", params["run_id"])
        answer = self.call_on_box(FAR_END, params, task_vars)
        return fields(answer, str(task_vars.get("inventory_hostname", "")), {"changed": bool})
