# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the module ``manifest`` does with ``tenant_root``: build the manifest of what is to come home of a run."""

from __future__ import annotations

from typing import Any

from . import manifest_task, provenance
from .box import held_files, left_behind, policy, run_manifest
from .box.layout import Layout
from .box.refusal import USAGE, Refused
from .box.run_record import ROLES


def take(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """The module's result. :raises TenantFailure: kind ``evidence_missing`` or ``config``."""
    layout, run_id, snapshot = Layout(params["tenant_root"]), params["run_id"], params["snapshot"]
    with manifest_task.speaking():
        built = run_manifest.current(layout, run_id, snapshot, not check, _chosen(params))
        more = {
            "root": held_files.root_of(layout, run_id, snapshot and not check),
            "not_pulled": left_behind.listing(layout, run_id, built),
            "provenance": provenance.told_by_box(layout, run_id, params["versions"]),
        }
    return {**more, **manifest_task.kept_and_compared(params, built, check)}


def _chosen(params: dict[str, Any]) -> policy.Policy | None:
    """What comes home of this snapshot; None for the policy in force."""
    if not (params["roles"] or params["exclude"]):
        return None
    if not params["snapshot"]:
        fix = "choose with tenant.gpu.harvest_policy, before the box is sealed"
        raise Refused(USAGE, "what comes home in the end is not chosen by its manifest", fix)
    return policy.of(params["roles"] or list(ROLES), params["exclude"])
