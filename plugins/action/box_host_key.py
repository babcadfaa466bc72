# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import time
from typing import Any

from ansible.utils.display import Display
from ansible_collections.tenant.gpu.plugins.module_utils import box_endpoint, host_keys
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import check_name
from ansible_collections.tenant.gpu.plugins.module_utils.endpoint import check_endpoint
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.tenant.gpu.plugins.plugin_utils.host_key_scan import read_known_hosts, scan_once

LONGEST_PAUSE_S = 5.0
display = Display()


class ActionModule(ControllerAction):
    """Pins the host key of a box, seen from the controller."""

    ARGUMENT_SPEC = {
        "name": {"type": "str"},
        "state_dir": {"type": "path", "required": True},
        "endpoint": {"type": "dict"},
        "expected_keys": {"type": "list", "elements": "str", "default": []},
        "log": {"type": "str", "default": ""},
        "wait_s": {"type": "float", "default": 60.0},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        box = check_name("box", params["name"] or task_vars["inventory_hostname"])
        endpoint = params["endpoint"] or task_vars.get("ansible_facts", {}).get("box_endpoint")
        if not endpoint:
            raise _failure("config", box, "it has not been located", "run tenant.gpu.box_locate before")
        box_endpoint.refuse_unlocated(box, endpoint)
        host, port, _user = check_endpoint(endpoint["host"], endpoint["port"], endpoint["user"] or "nobody")
        generation = int(endpoint["generation"])
        alias = box_endpoint.alias(box, generation)
        path = StateStore(params["state_dir"]).known_hosts_path(box)
        before = read_known_hosts(path)
        try:
            expected, whole = host_keys.parse_expected(params["expected_keys"])
        except ValueError as error:
            raise _failure("config", box, f"expected_keys: {error}", "copy the key or fingerprint whole") from None
        logged = host_keys.parse_log(params["log"])
        scanned = _scan(host, port, params["wait_s"]) or whole
        if not scanned:
            raise _failure(
                "unreachable",
                box,
                f"no ssh server answers at {host} port {port} within {params['wait_s']:.0f} s",
                "see whether the box runs; behind a jump host, give its public host key in expected_keys",
            )
        verdict = host_keys.judge(host_keys.pinned(before, alias), scanned, expected, logged)
        if verdict.refused:
            raise _changed_key(box, generation, verdict.refused)
        after = host_keys.as_known_hosts(alias, verdict.keys)
        changed = after != before
        if changed and self.check_mode:
            display.warning(f"The host key of {box} would be pinned now. Until it is, nothing connects to the box.")
        elif changed:
            records.write_bytes(path, after.encode("ascii"))
        return {
            "changed": changed,
            "diff": {"before": before, "after": after, "before_header": path, "after_header": path} if changed else {},
            "alias": alias,
            "path": path,
            "trust": verdict.trust,
            "how": verdict.trust.replace(" ", "_"),
            "fingerprints": [key.fingerprint for key in verdict.keys],
        }


def _scan(host: str, port: int, wait_s: float) -> list[host_keys.HostKey]:
    """The keys that the ssh server shows; empty when none answers before the deadline."""
    deadline = time.monotonic() + wait_s
    pause = 0.5
    while True:
        found = scan_once(host, port)
        left = deadline - time.monotonic()
        if found or left <= 0:
            return found
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, LONGEST_PAUSE_S)


def _changed_key(box: str, generation: int, what: str) -> TenantFailure:
    return _failure(
        "probe_refused",
        box,
        f"generation {generation}: {what}",
        "somebody may be in between, or ansible_host and ansible_port lead to another box after a start. Compare the "
        "fingerprint with the provider's console or the instance's log; if it is right (its system was reset, say), "
        "give it in expected_keys (the plays: provision_host_keys); if the machine was made anew by hand, raise "
        "tenant_generation of the box",
    )


def _failure(kind: str, box: str, what: str, fix: str) -> TenantFailure:
    return TenantFailure(kind, what, box=box, safe="nothing was sent to it and no key was pinned", fix=fix)
