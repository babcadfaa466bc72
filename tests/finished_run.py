# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the harvest of a finished run leaves at home, less the receipt."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import roster
from ansible_collections.tenant.gpu.plugins.module_utils.box import records

MODEL = "main/a1/out/model.bin"
CONTENTS = {MODEL: (b"weights", "none"), "main/a1/done.json": (b"{}", "json")}


def bring_home(
    results: Path,
    run_id: str,
    spec_sha256: str,
    box: str = "b1",
    project: str = "demo",
    contents: dict[str, tuple[bytes, str]] | None = None,
) -> Path:
    """:param contents: bytes and loader by path. Returns the folder of the box's first generation."""
    root = results / project / run_id / box / "g1"
    files = []
    for path, (data, loader) in sorted((contents or CONTENTS).items()):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        files.append({"path": path, "bytes": len(data), "sha256": sha256, "role": "other", "loader": loader})
    record: dict[str, Any] = {
        "schema": records.schema("manifest"), "project": project, "run_id": run_id, "spec_sha256": spec_sha256,
        "box": box, "generation": 1, "provider_id": "42", "state": "done", "snapshot": False, "files": files,
    }  # fmt: skip
    record["digest"] = roster.manifest_digest(record)
    records.write_record(str(root / "manifest.json"), "manifest", record)
    return root
