# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from importlib import metadata
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import load_checks, receipts, roster
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import ControllerAction


class ActionModule(ControllerAction):
    ARGUMENT_SPEC = {
        "project": {"type": "str", "required": True},
        "run_id": {"type": "str", "required": True},
        "box": {"type": "str", "required": True},
        "generation": {"type": "int", "required": True},
        "provider_id": {"type": "str", "required": True},
        "state_dir": {"type": "path", "required": True},
        "root": {"type": "path", "required": True},
        "manifest": {"type": "path"},
        "run_state": {"type": "str", "default": "unknown"},
        "snapshot": {"type": "bool", "default": False},
        "level": {"type": "str", "choices": ["structure", "load", "expect"], "default": "load"},
        "expect": {"type": "dict", "default": {}, "options": load_checks.EXPECT_SPEC},
        "how": {"type": "str", "choices": ["pulled", "reread"], "default": "pulled"},
        "provenance": {"type": "dict", "default": {}},
        "not_pulled": {"type": "list", "elements": "str", "default": []},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        identity = BoxIdentity(params["project"], params["box"], params["generation"], params["provider_id"])
        root = os.path.abspath(params["root"])
        manifest = self._manifest(params, root)
        claim = receipts.Claim(
            identity=identity,
            root=root,
            manifest=manifest,
            run_state="snapshot" if params["snapshot"] else params["run_state"],
            level=params["level"],
            expect={key: value for key, value in params["expect"].items() if value is not None},
            how=params["how"],
            provenance=params["provenance"],
            not_pulled=params["not_pulled"],
            tool_version=_tool_version(),
        )
        outcome = receipts.establish(StateStore(params["state_dir"]), claim, self.check_mode)
        result = {"changed": outcome.changed, "receipt": dict(outcome.receipt), "diff": dict(outcome.diff)}
        if outcome.extra:
            shown = ", ".join(outcome.extra[:10])
            result["warnings"] = [f"{root} holds files that the manifest does not list: {shown}"]
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


def _tool_version() -> str:
    try:
        return f"gpu-tenant {metadata.version('gpu-tenant')}"
    except metadata.PackageNotFoundError:
        return "gpu-tenant (collection only)"
