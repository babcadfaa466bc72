# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.load_checks import EXPECT_SPEC
from ansible_collections.tenant.gpu.plugins.plugin_utils.box_call import BoxCall
from ansible_collections.tenant.gpu.plugins.plugin_utils.silence import WORK_S
from ansible_collections.tenant.gpu.plugins.plugin_utils.strangers_answer import fields

FAR_END = "load_task.verify"
FILE_SPEC = {
    "path": {"type": "str", "required": True},
    "loader": {
        "type": "str",
        "choices": ["torch", "safetensors", "npz", "json", "hf", "dcp", "none"],
        "default": "none",
    },
}


class ActionModule(BoxCall):
    """Loads with what is installed for the interpreter of the task."""

    WORKS = (FAR_END,)

    ARGUMENT_SPEC = {
        "root": {"type": "path", "required": True},
        "manifest": {"type": "dict"},
        "files": {"type": "list", "elements": "dict", "options": FILE_SPEC},
        "level": {"type": "str", "choices": ["structure", "load", "expect"], "default": "load"},
        "expect": {"type": "dict", "default": {}, "options": EXPECT_SPEC},
        "missing_library": {"type": "str", "choices": ["fail", "structure"], "default": "fail"},
        "deadline_s": {"type": "float", "default": WORK_S},
    }
    VALIDATION = {"mutually_exclusive": [("manifest", "files")]}

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        answer = self.call_on_box(FAR_END, params, task_vars, site=True, within_s=params["deadline_s"])
        told = fields(answer, str(task_vars.get("inventory_hostname", "")), {"checks": list, "why_not_loaded": str})
        return {"changed": False, **told}
