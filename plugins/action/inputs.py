# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible_collections.tenant.gpu.plugins.module_utils import input_sizes, object_client
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.plugin_utils.box_call import BoxCall
from ansible_collections.tenant.gpu.plugins.plugin_utils.silence import Silent
from ansible_collections.tenant.gpu.plugins.plugin_utils.strangers_answer import fields, form_is_checked

FAR_END = "inputs_task.act"
# Each look is a short connection of its own, so that a lost one costs nothing: the box goes on fetching by itself.
LOOK_S = 20.0
LOST_LOOKS = 10
PAUSE_AFTER_LOST_S = 3.0
# A URL for an object must outlive the whole fetch, retries and reboots included.
EXPIRY_MARGIN_S = 3600


class ActionModule(BoxCall):
    WORKS = (FAR_END,)
    ARGUMENT_SPEC = {
        "tenant_root": {"type": "path", "required": True},
        "inputs": {"type": "list", "elements": "dict", "required": True},
        "pyz": {"type": "path", "default": ""},
        "env": {"type": "dict", "default": {}},
        "env_file": {"type": "path", "default": ""},
        "proxy_hook": {"type": "str", "default": ""},
        "object_store": {"type": "dict", "default": {}},
        "limits": {"type": "dict", "default": {}},
        "deadline_s": {"type": "float", "default": 6 * 3600.0},
        "stall_s": {"type": "float", "default": 60.0},
        "tries": {"type": "int", "default": 12},
        "connections": {"type": "int", "default": 4},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        self._box = str(task_vars.get("inventory_hostname", ""))
        limits = params["limits"]
        order = {
            "inputs": params["inputs"],
            "env": {str(name): str(value) for name, value in params["env"].items()},
            **{key: params[key] for key in ("env_file", "proxy_hook", "deadline_s", "stall_s", "tries", "connections")},
            **{
                f"reserve_{unit}": limits[f"min_free_{unit}"]
                for unit in ("bytes", "inodes")
                if f"min_free_{unit}" in limits
            },
        }
        options = {"tenant_root": params["tenant_root"], "pyz": params["pyz"], "order": order}
        first = self._ask(dict(options, state="looked"), task_vars)
        if not first["changed"] or self.check_mode:
            return first
        urls = self._presigned(params)
        answer = self._ask(dict(options, state="fetched", urls=urls, wait_s=LOOK_S), task_vars)
        return self._until_ended(answer, options, params["deadline_s"], task_vars)

    def _presigned(self, params: dict[str, Any]) -> dict[str, str]:
        """A URL for each object, made here, so that no key of the account reaches the box."""
        expires_s = int(params["deadline_s"]) + EXPIRY_MARGIN_S
        urls = {}
        for entry in params["inputs"]:
            if object_client.is_uri(entry.get("uri")):
                client, path = input_sizes.object_of(entry["uri"], params["object_store"])
                urls[entry["dest"]] = client.presigned("get_object", path, expires_s)
        return urls

    def _until_ended(
        self, answer: dict[str, Any], options: dict[str, Any], deadline_s: float, task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        until = time.monotonic() + deadline_s
        lost, last = 0, answer
        while answer["inputs"]["state"] == "fetching":
            asked_at = time.monotonic()
            if asked_at > until:
                raise self._failure("training_failed", f"the inputs did not arrive within {deadline_s:g} s", last)
            try:
                answer = self._ask(dict(options, state="awaited", wait_s=LOOK_S), task_vars)
                lost, last = 0, answer
                self._pause_after(answer, asked_at)
            except Silent as silence:
                raise self._failure("unreachable", f"{silence.what} while it fetches", last) from silence
            except AnsibleConnectionFailure as error:
                lost += 1
                if lost >= LOST_LOOKS:
                    raise self._failure("unreachable", f"the box was lost while it fetches ({error})", last) from error
                time.sleep(PAUSE_AFTER_LOST_S)
        with form_is_checked(self._box):
            return dict(answer, changed=True, diff=_diff(answer["inputs"]["set"]))

    @staticmethod
    def _pause_after(answer: dict[str, Any], asked_at: float) -> None:
        """A box that does not wait with its answer is not asked the more often for it."""
        used_s = time.monotonic() - asked_at
        if answer["inputs"]["state"] == "fetching" and used_s < LOOK_S:
            time.sleep(LOOK_S - used_s)

    def _ask(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        answer = self.call_on_box(FAR_END, arguments, task_vars)
        found = fields(answer, self._box, {"changed": bool, "inputs": dict, "diff": dict})
        fields(found["inputs"], self._box, {"state": str}, {"set": str, "bytes": int, "bytes_total": int})
        return found

    def _failure(self, kind: str, what: str, last: dict[str, Any]) -> TenantFailure:
        seen = last["inputs"]
        far = f"{seen.get('bytes') or 0} of {seen.get('bytes_total') or 'unknown'} bytes were proven"
        safe = f"what arrived is kept, and the box goes on by itself ({far})"
        return TenantFailure(kind, what, self._box, safe=safe, fix="run the same command again: it adopts the fetch")


def _diff(set_digest: str) -> dict[str, Any]:
    return {"before": {set_digest: "absent"}, "after": {set_digest: "proven"}}
