# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the task ``verify_load`` does where the files are."""

from __future__ import annotations

from typing import Any, Mapping

from . import load_checks, load_formats, roster
from .failures import TenantFailure


def verify(params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """The checks, and why nothing was loaded if so; TenantFailure when one failed or nothing can be checked.

    :param check_mode: makes no difference, since nothing is changed.
    """
    level, why_not = params["level"], ""
    try:
        files = _files(params)
        expect = {key: value for key, value in (params["expect"] or {}).items() if value is not None}
        if level == "load" and params["missing_library"] == "structure":
            why_not = load_formats.missing_library((file["path"], file["loader"]) for file in files)
        if why_not:
            level, expect = "structure", {}
        checks = load_checks.check_roster(params["root"], files, level, expect)
    except (load_checks.BadExpectation, roster.BadManifest) as error:
        raise TenantFailure("config", str(error), fix="Correct the task") from error
    load_checks.refuse_failed(checks, params["root"])
    return {"checks": checks, "why_not_loaded": why_not}


def _files(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    if params["files"] is not None:
        return list(params["files"])
    given = params["manifest"]
    manifest = roster.read_manifest(params["root"]) if given is None else roster.parse_manifest(given)
    return [{"path": file.path, "loader": file.loader} for file in manifest.files if file.loader != "none"]
