# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.finished_cells import finished_cells
from ansible_collections.tenant.gpu.plugins.module_utils.resume_checkpoints import newest_checkpoints
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import ControllerAction


class ActionModule(ControllerAction):
    ARGUMENT_SPEC = {
        "results_dir": {"type": "path", "required": True},
        "project": {"type": "str", "required": True},
        "run_id": {"type": "str", "required": True},
        "name": {"type": "str", "required": True},
        "generation": {"type": "int", "required": True},
        "spec_sha256": {"type": "str", "default": ""},
        "parts": {"type": "list", "elements": "str", "default": []},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        here = (params["name"], params["generation"])
        run = (params["results_dir"], params["project"], params["run_id"])
        only_from = params["name"] if params["parts"] else ""
        done = finished_cells(*run, here, params["spec_sha256"], only_from) if params["spec_sha256"] else []
        over = {cell["cell"] for cell in done}
        found = newest_checkpoints(*run, not_from=here, spec_sha256=params["spec_sha256"])
        return {"changed": False, "finished": done, "checkpoints": [each for each in found if each["cell"] not in over]}
