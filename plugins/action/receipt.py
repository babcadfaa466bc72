# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from importlib import metadata
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import (
    load_checks,
    parts,
    provenance,
    receipts,
    roster,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box import left_behind, records
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import printable
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import (
    BOX_IDENTITY_SPEC,
    ControllerAction,
    box_identity_of,
)

_LONGEST = 1024


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
        claim = self._claim(params, identity, store)
        whole_root = os.path.abspath(params["whole_root"] or os.path.join(claim.root, "..", "..", parts.WHOLE))
        outcome = parts.establish(store, claim, whole_root, self.check_mode)
        result = {"changed": outcome.changed, "receipt": dict(outcome.receipt), "diff": dict(outcome.diff)}
        if outcome.extra:
            shown = ", ".join(outcome.extra[:10])
            result["warnings"] = [f"{claim.root} holds files that the manifest does not list: {shown}"]
        return result

    def _claim(self, params: dict[str, Any], identity: BoxIdentity, store: StateStore) -> receipts.Claim:
        root = os.path.abspath(params["root"])
        manifest = self._manifest(params, root)
        known = _known(store, identity, manifest)
        told = known["provenance"] if params["provenance"] is None else params["provenance"]
        record = store.read_box(identity.project, identity.box, identity.generation)
        return receipts.Claim(
            identity=identity,
            root=root,
            manifest=manifest,
            run_state="snapshot" if params["snapshot"] else params["run_state"],
            level=params["level"],
            expect={key: value for key, value in params["expect"].items() if value is not None},
            how=params["how"],
            copies=known["copies"] if params["copies"] is None else _copies(params),
            parts=tuple(known["parts"] if params["parts"] is None else params["parts"]),
            provenance=provenance.compose(told, record, records.utc_now()),
            not_pulled=known["not_pulled"] if params["not_pulled"] is None else _left_behind(params["not_pulled"]),
            tool_version=_tool_version(),
        )

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


def _known(store: StateStore, identity: BoxIdentity, manifest: roster.Manifest) -> dict[str, Any]:
    """What the receipt in force says beyond the files, if it is for this very manifest; it holds until told anew."""
    receipt = receipts.read(store, identity, manifest.run_id) or {}
    if receipt.get("manifest_digest") != manifest.digest:
        receipt = {}
    totals = receipt.get("not_pulled_totals") or {}
    return {
        "copies": [dict(copy) for copy in (receipt.get("copies") or [])[1:]],
        "parts": receipt.get("parts") or [],
        "provenance": receipt.get("provenance") or {},
        "not_pulled": {**totals, "listed": receipt.get("not_pulled") or []},
    }


def _copies(params: dict[str, Any]) -> list[dict[str, Any]]:
    for copy in params["copies"]:
        if not isinstance(copy.get("uri"), str):
            raise TenantFailure(
                "config",
                f"one of the copies has no uri: {str(copy)[:200]}",
                box=params["box"],
                safe="No receipt was touched",
                fix="Give copies as tenant.gpu.checked_sync returns them",
            )
    return list(params["copies"])


def _left_behind(told: dict[str, Any]) -> dict[str, Any]:
    """What the box says that it keeps, bounded and of known types: it is a stranger's word."""
    listed = told.get("listed")
    entries = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    return {
        "files": _count(told.get("files")),
        "bytes": _count(told.get("bytes")),
        "listed": [
            {
                "path": printable(str(each.get("path")))[:_LONGEST],
                "bytes": _count(each.get("bytes")),
                "why": printable(str(each.get("why")))[:_LONGEST],
            }
            for each in entries[: left_behind.MOST_LISTED]
        ],
    }


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


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
