# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a receipt would say, from the parameters of a task and from what the receipt in force says already."""

from __future__ import annotations

import os
from importlib import metadata
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import provenance, receipts, roster
from ansible_collections.tenant.gpu.plugins.module_utils.box import left_behind, records
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import printable
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore

_LONGEST = 1024


def compose(
    params: dict[str, Any], identity: BoxIdentity, store: StateStore, manifest: roster.Manifest
) -> receipts.Claim:
    """:param params: what is None or missing of ``copies``, ``parts``, ``provenance`` and ``not_pulled`` stays as the
    receipt in force says it.
    """
    known = _known(store, identity, manifest)
    told = _given(params, "provenance", known)
    record = store.read_box(identity.project, identity.box, identity.generation)
    return receipts.Claim(
        identity=identity,
        root=os.path.abspath(params["root"]),
        manifest=manifest,
        run_state=receipts.SNAPSHOT if params.get("snapshot") else params["run_state"],
        level=params["level"],
        expect={key: value for key, value in params["expect"].items() if value is not None},
        how=params.get("how", "pulled"),
        copies=known["copies"] if params.get("copies") is None else _copies(params),
        parts=tuple(_given(params, "parts", known)),
        provenance=provenance.compose(told, record, records.utc_now()),
        not_pulled=known["not_pulled"] if params.get("not_pulled") is None else _left_behind(params["not_pulled"]),
        tool_version=_tool_version(),
    )


def _given(params: dict[str, Any], name: str, known: dict[str, Any]) -> Any:
    return known[name] if params.get(name) is None else params[name]


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


def _tool_version() -> str:
    try:
        return f"gpu-tenant {metadata.version('gpu-tenant')}"
    except metadata.PackageNotFoundError:
        return "gpu-tenant (collection only)"
