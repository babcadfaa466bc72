# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import box_events
from ansible_collections.tenant.gpu.plugins.module_utils.box.records import utc_now
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import BOX_IDENTITY_SPEC, ControllerAction


class ActionModule(ControllerAction):
    ARGUMENT_SPEC = {
        **BOX_IDENTITY_SPEC,
        "platform": {"type": "str", "required": True},
        "event": {"type": "str", "choices": sorted(box_events.TIME_OF)},
        "detail": {"type": "dict", "default": {}},
        "tenant_root": {"type": "str", "default": ""},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        store = StateStore(params["state_dir"])
        place = (params["project"], params["box"], params["generation"])
        before = store.read_box(*place) or {}
        event = params["event"]
        happened = {}
        if event is not None:
            told = (params["detail"], params["tenant_root"])
            happened = box_events.changes(before, params["provider_id"], event, utc_now(), *told)
        if not happened:
            return {"changed": False, "record": before}
        changes = {"provider_id": params["provider_id"], "platform": params["platform"], **happened}
        after = {**before, **changes}
        if not self.check_mode:
            after = store.update_box(*place, **changes)
            identity = {"project": place[0], "box": place[1], "generation": place[2]}
            Journal(store).append("effect", event, **identity, provider_id=params["provider_id"])
        return {"changed": True, "record": after, "diff": {"before": before, "after": after}}
