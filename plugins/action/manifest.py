# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.tenant.gpu.plugins.plugin_utils.box_call import BoxCall
from ansible_collections.tenant.gpu.plugins.plugin_utils.silence import WORK_S
from ansible_collections.tenant.gpu.plugins.plugin_utils.strangers_answer import fields

OF_RUN, OF_FOLDER = "run_manifest_task.take", "folder_manifest_task.take"
NEEDED = {"manifest": dict, "changed": bool, "diff": dict}
MAYBE = {"root": str, "not_pulled": dict, "provenance": dict, "comparison": dict}
GLOB_SPEC = {
    "glob": {"type": "str", "required": True},
    "role": {"type": "str", "choices": ["checkpoint", "metrics", "log", "other"], "default": "other"},
    "loader": {
        "type": "str",
        "choices": ["torch", "safetensors", "npz", "json", "none", "dcp", "hf"],
        "default": "none",
    },
}


class ActionModule(BoxCall):
    """Hashes where the files are."""

    WORKS = (OF_RUN, OF_FOLDER)

    ARGUMENT_SPEC = {
        "tenant_root": {"type": "path"},
        "run_id": {"type": "str"},
        "snapshot": {"type": "bool", "default": False},
        "roles": {"type": "list", "elements": "str", "default": []},
        "exclude": {"type": "list", "elements": "str", "default": []},
        "versions": {"type": "bool", "default": True},
        "path": {"type": "path"},
        "globs": {"type": "list", "elements": "dict", "options": GLOB_SPEC},
        "project": {"type": "str", "default": ""},
        "generation": {"type": "int", "default": 0},
        "compare": {"type": "dict"},
        "dest": {"type": "path"},
        "deadline_s": {"type": "float", "default": WORK_S},
    }
    VALIDATION = {
        "required_one_of": [("tenant_root", "path")],
        "mutually_exclusive": [("tenant_root", "path")],
        "required_by": {"tenant_root": ["run_id"], "path": ["globs"]},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        work = OF_RUN if params["tenant_root"] else OF_FOLDER
        answer = self.call_on_box(work, params, task_vars, within_s=params["deadline_s"])
        return fields(answer, str(task_vars.get("inventory_hostname", "")), NEEDED, MAYBE)
