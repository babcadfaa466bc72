# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the module ``manifest`` does with ``path``: build the manifest of any folder. Nothing of a run is needed."""

from __future__ import annotations

from typing import Any

from . import manifest_task
from .box import manifest


def take(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """The module's result. :raises TenantFailure: kind ``evidence_missing`` or ``config``."""
    identity = {"project": params["project"], "box": "", "generation": params["generation"], "provider_id": ""}
    with manifest_task.speaking():
        files = manifest.of_folder(params["path"], params["globs"])
        built = manifest.build(identity, params["run_id"] or "", "", files, snapshot=params["snapshot"])
    return manifest_task.kept_and_compared(params, built, check)
