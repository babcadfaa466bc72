# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import box_endpoint, hand_stop, host_keys
from ansible_collections.tenant.gpu.plugins.module_utils.endpoint import check_endpoint
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import (
    BOX_IDENTITY_SPEC,
    ControllerAction,
    box_identity_of,
)
from ansible_collections.tenant.gpu.plugins.plugin_utils.host_key_scan import read_known_hosts, scan_once


class ActionModule(ControllerAction):
    """Says what a person has to do, and sees whether it was done; connects to no box."""

    ARGUMENT_SPEC = {
        **BOX_IDENTITY_SPEC,
        "step": {"type": "str", "choices": ["stopped", "released", "started"], "required": True},
        "verbs": {"type": "list", "elements": "dict", "default": []},
        "storage": {"type": "list", "elements": "dict", "default": []},
        "told": {"type": "bool", "default": False},
        "asked": {"type": "bool", "default": False},
        "looks": {"type": "int", "default": 2},
        "pause_s": {"type": "float", "default": 5.0},
        "wait_s": {"type": "float", "default": 0.0},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        identity, store = box_identity_of(params), StateStore(params["state_dir"])
        if params["step"] == "started":
            return {"changed": hand_stop.note_start(store, identity, self.check_mode), "done": True, "checklist": []}
        if params["looks"] < 1:
            raise TenantFailure("config", "looks is below 1", box=identity.box, fix="look once at least")
        if params["asked"] and params["step"] != hand_stop.STOPPED:
            raise TenantFailure("config", "asked is for step stopped", box=identity.box, fix="say told, once it is so")
        looks = params["told"] or params["asked"]
        seen, why = self._look(params, store, task_vars) if looks else (hand_stop.UNSEEN, "")
        result = hand_stop.settle(store, identity, params["step"], params["told"], seen, self.check_mode, why)
        return {**result, "checklist": hand_stop.checklist(params["verbs"], params["storage"])}

    @staticmethod
    def _look(params: dict[str, Any], store: StateStore, task_vars: dict[str, Any]) -> tuple[str, str]:
        endpoint = (task_vars.get("ansible_facts") or {}).get("box_endpoint") or {}
        host, port, _user = check_endpoint(endpoint.get("host"), endpoint.get("port"), endpoint.get("user") or "nobody")
        known = read_known_hosts(store.known_hosts_path(params["box"]))
        pinned = host_keys.pinned(known, box_endpoint.alias(params["box"], params["generation"]))
        direct = not endpoint.get("proxy")
        why = "" if direct and pinned else "no key of it is pinned" if direct else "it is behind a jump host"

        def take() -> str:
            return hand_stop.look(pinned, lambda: scan_once(host, port), params["looks"], params["pause_s"], direct)

        return hand_stop.watch(take, params["wait_s"] if params["asked"] else 0.0, params["pause_s"]), why
