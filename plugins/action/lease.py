# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import multiprocessing
import os
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import holders, lease, lease_keeper, leases
from ansible_collections.tenant.gpu.plugins.module_utils.holders import Holder
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import ControllerAction


class ActionModule(ControllerAction):
    ARGUMENT_SPEC = {
        "project": {"type": "str", "required": True},
        "box": {"type": "str", "required": True},
        "state_dir": {"type": "path", "required": True},
        "state": {"type": "str", "choices": ["taken", "released", "read"], "default": "taken"},
        "purpose": {"type": "str", "default": "a playbook"},
        "take_from": {"type": "str", "default": ""},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        store = StateStore(params["state_dir"])
        kept = leases.opened(store)
        place = (params["project"], params["box"])
        holder = _playbook()
        if self.check_mode or params["state"] == "read":
            return _reading(kept, place, holder)
        if params["state"] == "released":
            kept.release(*place, holder)
            return {**_reading(kept, place, holder), "ansible_facts": {"box_lease": {}}}
        nonce = leases.nonce_of(holder)
        grant = kept.take(lease.Ask(*place, params["purpose"], nonce, holder, over=params["take_from"]))
        lease_keeper.ensure(store, holder)
        told = {"epoch": grant.lease.epoch, "nonce": grant.lease.nonce}
        return {
            "changed": False,
            "how": grant.how,
            "held_by": "",
            "lease": lease.as_record(grant.lease),
            "ansible_facts": {"box_lease": told},
        }


def _reading(kept: leases.Leases, place: tuple[str, str], holder: Holder) -> dict[str, Any]:
    """What is known of the lease. An epoch that a fact cache kept from another day counts no more."""
    note = kept.note()
    if note:
        return {"changed": False, "how": "none", "held_by": note, "lease": None, "ansible_facts": {"box_lease": {}}}
    found = kept.read(*place)
    ours = found is not None and holder in found.holders
    return {
        "changed": False,
        "how": "none",
        "held_by": "" if ours else kept.holder_words(*place),
        "lease": None if found is None else lease.as_record(found),
        "ansible_facts": {} if ours else {"box_lease": {}},
    }


def _playbook() -> Holder:
    """ansible-playbook itself: each task has a worker process of its own, which ends with the task."""
    playbook = multiprocessing.parent_process()
    pid = os.getpid() if playbook is None or playbook.pid is None else playbook.pid
    return holders.of_process(pid)
