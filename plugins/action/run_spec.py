# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from typing import Any

from ansible.utils.display import Display
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.parts import finished_receipt
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import load_run_spec
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import ControllerAction

display = Display()


class ActionModule(ControllerAction):
    ARGUMENT_SPEC = {
        "path": {"type": "str", "required": True},
        "project": {"type": "str", "required": True},
        "state_dir": {"type": "path", "required": True},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        if not params["path"].strip():
            raise TenantFailure(
                "config",
                "no run was named",
                safe="nothing was rented",
                fix="set tenant_run to the path of a run spec, for instance -e tenant_run=examples/digits/run.yml",
            )
        spec = load_run_spec(_existing(params["path"].strip(), task_vars))
        store = StateStore(params["state_dir"])
        receipt = finished_receipt(store, params["project"], spec)
        if receipt is not None:
            display.display(
                f"Run {spec['id']} is finished and home: nothing more is rented, deployed or started for it."
            )
        return {"changed": False, "ansible_facts": {"run_spec": dict(spec, finished=receipt)}}


def _existing(path: str, task_vars: dict[str, Any]) -> str:
    """``path`` as given, or below the folder the command was started in, the playbook's folder or the inventory's."""
    path = os.path.expanduser(path)
    bases = [os.getcwd(), task_vars.get("playbook_dir"), task_vars.get("inventory_dir")]
    candidates = [os.path.join(base, path) for base in bases if base]
    return next((candidate for candidate in candidates if os.path.isfile(candidate)), candidates[0])
