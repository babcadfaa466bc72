# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible.utils.display import Display
from ansible_collections.tenant.gpu.plugins.module_utils import results_at_home
from ansible_collections.tenant.gpu.plugins.module_utils.results_at_home import Asker
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import ControllerAction

display = Display()


class ActionModule(ControllerAction):
    """Hashes and loads on the controller; connects to no box."""

    ARGUMENT_SPEC = {
        "project": {"type": "str", "required": True},
        "box": {"type": "str", "required": True},
        "generation": {"type": "int", "default": 0},
        "provider_id": {"type": "str", "default": ""},
        "state_dir": {"type": "path", "required": True},
        "run_spec": {"type": "dict", "required": True},
        "results_dir": {"type": "path", "required": True},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        spec, store = params["run_spec"], StateStore(params["state_dir"])
        asker = Asker(params["box"], params["generation"], params["provider_id"])
        found = results_at_home.find(store, params["project"], spec, params["results_dir"], asker, self.check_mode)
        if found is None:
            return {"changed": False}
        display.display(str(found))
        return {"changed": found.news, "ansible_facts": {"run_spec": dict(spec, finished=dict(found.record))}}
