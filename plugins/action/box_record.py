# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box.records import utc_now
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.ledger import DEPLOY_STARTED
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import BOX_IDENTITY_SPEC, ControllerAction

TIME_OF = {"admitted": "admitted_at", "rejected": "rejected_at", DEPLOY_STARTED: "deploy_started_at"}
DETAIL_OF = {"admitted": "admission", "rejected": "rejection"}


class ActionModule(ControllerAction):
    ARGUMENT_SPEC = {
        **BOX_IDENTITY_SPEC,
        "platform": {"type": "str", "required": True},
        "event": {"type": "str", "choices": sorted(TIME_OF)},
        "detail": {"type": "dict", "default": {}},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        store = StateStore(params["state_dir"])
        place = (params["project"], params["box"], params["generation"])
        before = store.read_box(*place) or {}
        event = params["event"]
        same_machine = before.get("provider_id") == params["provider_id"]
        if event is None or (same_machine and before.get(TIME_OF[event])):
            return {"changed": False, "record": before}
        changes = {
            "provider_id": params["provider_id"],
            "platform": params["platform"],
            TIME_OF[event]: utc_now(),
        }
        if event in DETAIL_OF:
            changes[DETAIL_OF[event]] = params["detail"]
        after = {**before, **changes}
        if not self.check_mode:
            after = store.update_box(*place, **changes)
            identity = {"project": place[0], "box": place[1], "generation": place[2]}
            Journal(store).append("effect", event, **identity, provider_id=params["provider_id"])
        return {"changed": True, "record": after, "diff": {"before": before, "after": after}}
