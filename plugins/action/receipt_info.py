# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from typing import Any

from ansible.utils.display import Display
from ansible_collections.tenant.gpu.plugins.module_utils import load_checks, receipts, roster
from ansible_collections.tenant.gpu.plugins.module_utils.box import left_behind
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from ansible_collections.tenant.gpu.plugins.plugin_utils import receipt_claim
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import (
    BOX_IDENTITY_SPEC,
    ControllerAction,
    box_identity_of,
)
from ansible_collections.tenant.gpu.plugins.plugin_utils.silence import Silent
from ansible_collections.tenant.gpu.plugins.plugin_utils.supervisor_task import BoxClient, NoProgram

display = Display()


class ActionModule(ControllerAction):
    ARGUMENT_SPEC = {
        **BOX_IDENTITY_SPEC,
        "run_id": {"type": "str", "required": True},
        "root": {"type": "path", "required": True},
        "tenant_root": {"type": "path", "required": True},
        "level": {"type": "str", "choices": ["structure", "load", "expect"], "default": "load"},
        "expect": {"type": "dict", "default": {}, "options": load_checks.EXPECT_SPEC},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        store = StateStore(params["state_dir"])
        why = self._why_not(store, box_identity_of(params), params, task_vars)
        return {"changed": False, "stands": not why, "why": why}

    def _why_not(
        self, store: StateStore, identity: BoxIdentity, params: dict[str, Any], task_vars: dict[str, Any]
    ) -> str:
        """Why the receipt does not stand, or cannot be told to; empty when it does."""
        known = receipts.read(store, identity, params["run_id"])
        if known is None or known.get("complete") is not True:
            return "there is no complete receipt of this box"
        if len(known.get("parts") or []) > 1:
            return "the run has parts on other boxes"
        promised = self._promise(params, task_vars)
        if promised.get("sealed") is not True:
            return "the box is not sealed with these files"
        try:
            manifest = roster.read_manifest(os.path.abspath(params["root"]))
        except roster.BadManifest as error:
            return str(error)
        if not known.get("manifest_digest") == manifest.digest == promised.get("digest"):
            return "the box, the receipt and the manifest beside the results do not name the same files"
        left = promised.get("not_pulled")
        told = {**params, "run_state": str(promised.get("state")), "not_pulled": left if isinstance(left, dict) else {}}
        claim = receipt_claim.compose(told, identity, store, manifest)
        if manifest.record.get("policy") != promised.get("policy") or receipts.standing(store, claim) is None:
            return "the results, or what the receipt says of them, are not as they were"
        if roster.extra_files(claim.root, manifest.files):
            return f"{claim.root} holds files that nobody promised"
        if claim.not_pulled["files"]:
            # As at every harvest: they die with the box.
            display.display(left_behind.summary(*(claim.not_pulled[name] for name in ("files", "bytes", "listed"))))
        return ""

    def _promise(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """What the box says; nothing where its program is gone, refuses, or is too old to know the question."""
        client = BoxClient(self.run_on_box, self.box_python(task_vars), "", params["tenant_root"])
        try:
            return client.call("promise", "--run", params["run_id"])
        except Silent:
            raise
        except (NoProgram, TenantFailure):
            return {}
