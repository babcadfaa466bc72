# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the module ``manifest`` does with ``tenant_root``: build the manifest of what is to come home of a run."""

from __future__ import annotations

from typing import Any

from . import manifest_task, provenance
from .box import held_files, left_behind, run_manifest
from .box.layout import Layout


def take(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """The module's result. :raises TenantFailure: kind ``evidence_missing`` or ``config``."""
    layout, run_id, snapshot = Layout(params["tenant_root"]), params["run_id"], params["snapshot"]
    with manifest_task.speaking():
        built = run_manifest.current(layout, run_id, snapshot, keep=not check)
        more = {
            "root": held_files.root_of(layout, run_id, snapshot and not check),
            "not_pulled": left_behind.listing(layout, run_id, built),
            "provenance": provenance.told_by_box(layout, run_id, params["versions"]),
        }
    return {**more, **manifest_task.kept_and_compared(params, built, check)}
