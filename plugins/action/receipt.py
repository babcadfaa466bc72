# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import load_checks, parts, roster
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.plugin_utils import receipt_claim
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import (
    BOX_IDENTITY_SPEC,
    ControllerAction,
    box_identity_of,
)


class ActionModule(ControllerAction):
    ARGUMENT_SPEC = {
        **BOX_IDENTITY_SPEC,
        "run_id": {"type": "str", "required": True},
        "root": {"type": "path", "required": True},
        "manifest": {"type": "path"},
        "run_state": {"type": "str", "default": "unknown"},
        "snapshot": {"type": "bool", "default": False},
        "level": {"type": "str", "choices": ["structure", "load", "expect"], "default": "load"},
        "expect": {"type": "dict", "default": {}, "options": load_checks.EXPECT_SPEC},
        "how": {"type": "str", "choices": ["pulled", "reread"], "default": "pulled"},
        "copies": {"type": "list", "elements": "dict"},
        "parts": {"type": "list", "elements": "str"},
        "whole_root": {"type": "path"},
        "provenance": {"type": "dict"},
        "not_pulled": {"type": "dict"},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        identity = box_identity_of(params)
        store = StateStore(params["state_dir"])
        manifest = self._manifest(params, os.path.abspath(params["root"]))
        claim = receipt_claim.compose(params, identity, store, manifest)
        whole_root = os.path.abspath(params["whole_root"] or os.path.join(claim.root, "..", "..", parts.WHOLE))
        outcome = parts.establish(store, claim, whole_root, self.check_mode)
        result = {"changed": outcome.changed, "receipt": dict(outcome.receipt), "diff": dict(outcome.diff)}
        if outcome.extra:
            shown = ", ".join(outcome.extra[:10])
            result["warnings"] = [f"{claim.root} holds files that the manifest does not list: {shown}"]
        return result

    def _manifest(self, params: dict[str, Any], root: str) -> roster.Manifest:
        """The manifest, which must also lie beside the files: the gate reads it there."""
        beside = os.path.join(root, roster.MANIFEST_NAME)
        path = params["manifest"] or beside
        try:
            manifest = roster.parse_manifest(records.read_record(path, "manifest"), path)
        except (records.RecordError, roster.BadManifest) as error:
            raise _missing(params, str(error)) from error
        if manifest.run_id != params["run_id"]:
            raise _missing(params, f"{path} is the manifest of run {manifest.run_id}, not of {params['run_id']}")
        self._refuse_other_beside(params, beside, manifest)
        if os.path.realpath(path) != os.path.realpath(beside) and not self.check_mode:
            records.write_record(beside, "manifest", dict(manifest.record))
        return manifest

    @staticmethod
    def _refuse_other_beside(params: dict[str, Any], beside: str, manifest: roster.Manifest) -> None:
        if not os.path.exists(beside):
            return
        try:
            digest = roster.read_manifest(os.path.dirname(beside)).digest
        except roster.BadManifest as error:
            raise _missing(params, str(error)) from error
        if digest != manifest.digest:
            raise _missing(params, f"{beside} lists other files than {params['manifest']}")


def _missing(params: dict[str, Any], what: str) -> TenantFailure:
    return TenantFailure(
        "evidence_missing",
        what,
        box=params["box"],
        safe="No receipt was written",
        fix="Pull the run again with the harvest playbook",
    )
