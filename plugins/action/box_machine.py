# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible_collections.tenant.gpu.plugins.module_utils import box_endpoint, machine_mark
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import check_name
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.machine_mark import Seen, Subject
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.plugin_utils import first_key
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.tenant.gpu.plugins.plugin_utils.silence import ANSWER_S


class ActionModule(ControllerAction):
    """Looks at a box by plain sh over the connection that the next tasks use; its key is the pinned one then."""

    A_BOX_SPEAKS = True
    ARGUMENT_SPEC = {
        "project": {"type": "str", "required": True},
        "name": {"type": "str"},
        "state_dir": {"type": "path", "required": True},
        "state": {"type": "str", "choices": ["proven", "marked"], "default": "proven"},
        "required": {"type": "bool", "default": False},
        "record": {"type": "bool", "default": True},
    }

    _is_denied = False

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        self._wanted = machine_mark.identity_wanted(self._templar.template(task_vars.get("platform_instance_id")))
        if not self._wanted:
            return _nothing("its platform names no instances")
        box = check_name("box", params["name"] or task_vars["inventory_hostname"])
        endpoint = task_vars.get("ansible_facts", {}).get("box_endpoint")
        if not endpoint:
            fix = "run tenant.gpu.box_locate before"
            raise TenantFailure("config", "it has not been located", box, "nothing was connected to", fix)
        project, generation = check_name("project", params["project"]), int(endpoint["generation"])
        data_dir = str(self._templar.template(task_vars["platform_data_dir"]))
        self._subject = Subject(project, box, generation, data_dir)
        self._endpoint, self._store = dict(endpoint), StateStore(params["state_dir"])
        record = self._store.read_box(project, box, generation) or {}
        if isinstance(record.get("machine"), Mapping):
            return self._prove(record, params["required"], params["record"] and not self.check_mode)
        return self._mark(record) if params["state"] == "marked" else _nothing("it has no mark yet")

    # -- a machine on record -------------------------------------------------------------------------------------

    def _prove(self, record: dict[str, Any], required: bool, note: bool) -> dict[str, Any]:
        machine = record["machine"]
        try:
            seen = self._look()
        except TenantFailure as failure:
            if required or self._is_denied:
                raise
            # A box at rest, or a stranger at its old address: what needs the box says so itself.
            return _nothing(failure.what)
        machine_mark.proven(self._subject, machine, seen)
        before, after = str(machine.get("address")), machine_mark.address_of(self._endpoint)
        moved = before != after
        if moved and note:
            self._note(record["provider_id"], "address_changed", before=before, after=after)
            self._update(machine={**machine, "address": after})
        told = {"before": {"address": before}, "after": {"address": after}} if moved else {}
        return {"changed": moved, "proven": True, "why": "", "moved_from": before if moved else "", "diff": told}

    # -- a machine of which nothing is on record -----------------------------------------------------------------

    def _mark(self, record: dict[str, Any]) -> dict[str, Any]:
        if self.check_mode:
            # A check run pins no key of a new box, so that nothing connects to one.
            return _nothing("it has no mark yet")
        seen, address = self._look(), machine_mark.address_of(self._endpoint)
        verdict = machine_mark.first_mark(self._subject, record, address, seen, secrets.token_hex(8), records.utc_now())
        if not verdict.id:
            return _nothing("it does not say which instance it is, so that it is known by its address")
        if verdict.write is not None:
            self._write(verdict.write)
        # What is on record at this very address keeps the name that its evidence was given to.
        known = str(record.get("provider_id") or "") if record.get("admitted_at") else ""
        self._endpoint["provider_id"] = known or machine_mark.provider_id(verdict.id)
        machine = {"id": verdict.id, "instance": dict(seen.instance), "address": address}
        self._note(self._endpoint["provider_id"], "machine_marked", machine=machine)
        self._update(provider_id=self._endpoint["provider_id"], machine=machine)
        return {
            "changed": True,
            "proven": True,
            "why": "",
            "moved_from": "",
            "ansible_facts": {"box_endpoint": self._endpoint},
        }

    # -- the box and the store -----------------------------------------------------------------------------------

    def _look(self) -> Seen:
        box_endpoint.refuse_unlocated(self._subject.box, self._endpoint)
        nonce = f"tenant-{secrets.token_hex(8)}"
        said = self._run(machine_mark.look_script(nonce, self._subject.data_dir, self._wanted))
        try:
            return machine_mark.parse(said, nonce, self._wanted)
        except machine_mark.NoAnswer:
            raise self._unreachable("it runs no command to its end") from None

    def _write(self, mark: dict[str, Any]) -> None:
        nonce = f"tenant-{secrets.token_hex(8)}"
        said = self._run(machine_mark.write_script(nonce, self._subject.data_dir, mark))
        if not machine_mark.was_written(said, nonce):
            raise self._subject.refusal(
                f"its mark could not be written to {self._subject.mark_path}",
                "see that the folder is there, has room, and belongs to the user who logs in",
            )

    def _run(self, script: str) -> str:
        try:
            with self.answered_within(ANSWER_S, self._subject.box):
                return str(self._low_level_execute_command(script, executable="/bin/sh").get("stdout", ""))
        except AnsibleConnectionFailure as error:
            said = first_key.said_by(error)
            self._is_denied = first_key.says_denied(said)
            if self._is_denied:
                # It has shown the pinned host key before: a box at rest cannot, and a stranger does not.
                raise first_key.refused(self._subject.box, f"it lets nobody in: {said}") from None
            raise self._unreachable(said) from None

    def _unreachable(self, why: str) -> TenantFailure:
        return TenantFailure(
            "unreachable",
            f"it cannot be seen which machine it is: {why}",
            self._subject.box,
            safe="nothing was changed on it",
            fix="see whether the box runs, and copy its host and port anew from the console: both may be others now",
        )

    def _update(self, **changes: Any) -> None:
        subject = self._subject
        self._store.update_box(subject.project, subject.box, subject.generation, **changes)

    def _note(self, provider_id: str, verb: str, **fields: Any) -> None:
        subject = self._subject
        identity = {"project": subject.project, "box": subject.box, "generation": subject.generation}
        Journal(self._store).append("effect", verb, **identity, provider_id=provider_id, **fields)


def _nothing(why: str) -> dict[str, Any]:
    return {"changed": False, "proven": False, "why": why, "moved_from": ""}
