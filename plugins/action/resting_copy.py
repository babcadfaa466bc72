# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import gate, last_contact, resting_copy, seal_reading
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import check_name
from ansible_collections.tenant.gpu.plugins.module_utils.box.records import read_record_or_none, utc_now
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import (
    BOX_IDENTITY_SPEC,
    ControllerAction,
    box_identity_of,
)
from ansible_collections.tenant.gpu.plugins.plugin_utils.silence import WORK_S
from ansible_collections.tenant.gpu.plugins.plugin_utils.strangers_answer import believed, fields, form_is_checked

MODULE = "tenant.gpu.resting_copy"


class ActionModule(ControllerAction):
    ARGUMENT_SPEC = {
        **BOX_IDENTITY_SPEC,
        "tenant_root": {"type": "path", "required": True},
        "state": {"type": "str", "choices": ["read", "absent"], "default": "read"},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        self._identity = box_identity_of(params)
        self._store = StateStore(params["state_dir"])
        self._params, self._vars = params, task_vars
        return self._read() if params["state"] == "read" else self._discard()

    def _read(self) -> dict[str, Any]:
        record = resting_copy.read_record(self._store, self._identity, self._params["tenant_root"])
        answer = self._ask()
        if answer.get("failed"):
            return answer
        with form_is_checked(self._helper()):
            reading = resting_copy.reading_of(self._identity, record, answer)
            reached = last_contact.parse(reading["checkpoints"]) or {}
            told = {
                "runs": _runs(reading["seal"]),
                "sealed_by": reading["at_rest"]["sealed_by"],
                **fields(reading, self._helper(), {"problems": list}),
            }
        if not self.check_mode:
            seal_reading.save(self._store, self._identity, reading)
            last_contact.note(self._store, self._identity, reached)
        return {"changed": False, **told}

    def _discard(self) -> dict[str, Any]:
        missing = self._not_home()
        if missing:
            return {"changed": False, "not_home": missing, "files": 0, "bytes": 0, "listed": []}
        if self.check_mode:
            answer = self._ask()
            return answer if answer.get("failed") else self._deleted(self._told(answer))
        about = dict(self._identity.as_dict(), path=self._params["tenant_root"])
        with Journal(self._store).effect("discard-copy", **about) as effect:
            answer = self._ask()
            if answer.get("failed"):
                raise TenantFailure("evidence_missing", str(answer.get("msg", "no reason given")), box=about["box"])
            told = self._told(answer)
            effect.details.update({name: told[name] for name in ("files", "bytes", "listed")})
        return self._deleted(told)

    def _told(self, answer: dict[str, Any]) -> dict[str, Any]:
        """What was deleted, in the words of the box that has the copy."""
        told = fields(answer, self._helper(), {"changed": bool, "files": int, "bytes": int, "listed": list})
        with form_is_checked(self._helper()):
            listed = [fields(line, self._helper(), {"path": str, "bytes": int}) for line in told["listed"]]
        return {**told, "listed": listed}

    @staticmethod
    def _deleted(told: dict[str, Any]) -> dict[str, Any]:
        lines = [f"{line['path']} ({line['bytes']} bytes)\n" for line in told["listed"]]
        return {**told, "not_home": [], "diff": {"before": "".join(lines), "after": ""}}

    def _helper(self) -> str:
        """The box that answers: the one that the task was delegated to."""
        return str(self._task.delegate_to or self._identity.box)

    def _not_home(self) -> list[str]:
        """What the records say that are re-read now, whatever the play believes."""
        identity, store = self._identity, self._store
        reading = read_record_or_none(
            store.seal_path(identity.project, identity.box, identity.generation), "seal-reading"
        )
        at_rest = (reading or {}).get("at_rest") or {}
        if at_rest.get("dest_path") != self._params["tenant_root"].rstrip("/"):
            return [f"{self._params['tenant_root']} was not read as the copy of {identity.box} g{identity.generation}"]
        view = gate.ProviderView("stopped", None, utc_now())
        evidence = gate.gather(store, identity, "discard-copy", [], view, reading=reading)
        with form_is_checked(self._helper()):
            # An older reading of it may hold what would not be kept now.
            return resting_copy.runs_not_home(evidence)

    def _ask(self) -> dict[str, Any]:
        with self.answered_within(WORK_S, self._helper()):
            return believed(self._execute_module(module_name=MODULE, module_args=self._params, task_vars=self._vars))


def _runs(seal: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    """The runs that a seal promises, each with its name. :raises TypeError: for what is none."""
    runs: list[Mapping[str, Any]] | None = seal.get("runs")
    for run in runs or []:
        check_name("run id", run["run_id"])
    return runs
