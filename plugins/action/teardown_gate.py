# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible_collections.tenant.gpu.plugins.module_utils import (
    artifact_tiers,
    gate,
    last_contact,
    losses,
    seal_reading,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box.records import utc_now
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import (
    BOX_IDENTITY_SPEC,
    ControllerAction,
    box_identity_of,
)
from ansible_collections.tenant.gpu.plugins.plugin_utils.silence import Silent

PROVIDER_STATES = [
    "absent",
    "loading",
    "running",
    "stopped",
    "outbid",
    "scheduling",
    "exited",
    "offline",
    "unknown",
]
# In these states there is nobody to ask.
SILENT_STATES = ("absent", *gate.STOPPED_STATES)
# Files that are newer than their seal are hashed again for the answer.
SEAL_S = 3600.0


class ActionModule(ControllerAction):
    A_BOX_SPEAKS = True
    ARGUMENT_SPEC = {
        **BOX_IDENTITY_SPEC,
        "tenant_root": {"type": "str", "required": True},
        "verb": {"type": "str", "required": True},
        "verb_keeps": {"type": "list", "elements": "str", "required": True},
        "storage": {"type": "list", "elements": "dict", "default": []},
        "artifact_paths": {"type": "list", "elements": "str", "default": []},
        "provider_state": {"type": "str", "choices": PROVIDER_STATES},
        "provider_started_at": {"type": "str"},
        "provider_observed_at": {"type": "str"},
        "fail_on_refusal": {"type": "bool", "default": True},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        identity = box_identity_of(params)
        store = StateStore(params["state_dir"])
        view = self._provider_view(params, task_vars)
        reading, note = self._read_seal(identity, params["tenant_root"], view, task_vars)
        if reading is not None and not self.check_mode:
            self._keep(store, identity, reading)
        tiers = artifact_tiers.holding_artifacts(params["storage"], params["artifact_paths"])
        evidence = gate.gather(
            store, identity, params["verb"], params["verb_keeps"], view, reading=reading, gated_tiers=tiers
        )
        decision = gate.decide(evidence)
        result = {
            "changed": False,
            "allowed": decision.allowed,
            "rule": decision.rule,
            "missing": list(decision.missing),
            "approval_id": decision.approval_id or "",
            "evidence": evidence.summary(),
            "loss": losses.of(evidence).words(),
            "note": note,
        }
        if decision.allowed or not params["fail_on_refusal"]:
            return result
        return {**result, **self._refusal(identity, params["verb"], decision, note).as_result(), "failed": True}

    @staticmethod
    def _keep(store: StateStore, identity: BoxIdentity, reading: dict[str, Any]) -> None:
        """The reading, and how far the runs are: if the box is lost from here on, that much is known of it."""
        seal_reading.save(store, identity, reading)
        last_contact.note(store, identity, last_contact.parse(reading["checkpoints"]) or {})

    @staticmethod
    def _provider_view(params: dict[str, Any], task_vars: dict[str, Any]) -> gate.ProviderView:
        located = (task_vars.get("ansible_facts") or {}).get("box_endpoint") or {}
        state = params["provider_state"] or located.get("state")
        return gate.ProviderView(
            state if state in PROVIDER_STATES else "unknown",
            params["provider_started_at"] or None,
            params["provider_observed_at"] or utc_now(),
        )

    def _read_seal(
        self, identity: BoxIdentity, tenant_root: str, view: gate.ProviderView, task_vars: dict[str, Any]
    ) -> tuple[dict[str, Any] | None, str]:
        """(a reading made now, or None to use the stored one; how the seal was read, in words)."""
        if view.state in SILENT_STATES:
            return None, f"the box is {view.state}, so the last seal reading in the state store is used"
        # Before the question: what is read cannot be older than this.
        read_at = utc_now()
        try:
            with self.answered_within(SEAL_S):
                answer = self._execute_module(
                    module_name="tenant.gpu.seal_info", module_args={"tenant_root": tenant_root}, task_vars=task_vars
                )
        except AnsibleConnectionFailure as error:
            return None, f"the box cannot be reached ({str(error)[:200]}), so the last seal reading is used"
        except Silent as silence:
            return None, f"{silence.what}, so the last seal reading is used"
        if answer.get("unreachable") or answer.get("failed"):
            reason = str(answer.get("msg", "no reason given"))[:200]
            return None, f"the box did not answer ({reason}), so the last seal reading is used"
        return seal_reading.as_record(identity, read_at, answer), "the seal was read from the box now"

    @staticmethod
    def _refusal(identity: BoxIdentity, verb: str, decision: gate.Decision, note: str) -> TenantFailure:
        return TenantFailure(
            "gate_refused",
            f"{verb} is refused: {'; '.join(decision.missing)} ({note})",
            box=identity.box,
            safe="The box and everything on it are untouched",
            fix="Do what each point says, then run this again",
        )
