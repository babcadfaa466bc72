# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Manifests of folders that tests made, as the box would write them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import roster
from ansible_collections.tenant.gpu.plugins.module_utils.box import records


def of_folder(folder: Path, **changes: Any) -> dict[str, Any]:
    """The manifest of the plain files below ``folder``."""
    files = [
        {
            "path": str(path.relative_to(folder)),
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "role": "other",
            "loader": "none",
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    ]
    return of_lines(files, **changes)


def of_lines(files: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """A manifest with these lines, whatever they say, and the digest that fits them."""
    record = {
        "schema": records.schema("manifest"),
        "project": "demo",
        "run_id": "r1",
        "spec_sha256": "5" * 64,
        "box": "box1",
        "generation": 1,
        "created_at": "2026-11-21T03:00:00Z",
        "files": files,
        **changes,
    }
    return dict(record, digest=roster.manifest_digest(record))
