# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Whose receipt says that the work of a watched box is home."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

from gpu_tenant.hosts import BoxHost
from gpu_tenant.watched import Watched


def watched(folder: Path, **spec: Any) -> Watched:
    path = folder / "run.yml"
    path.write_text(
        yaml.safe_dump(
            {
                "id": "digits",
                "command": ["true"],
                "artifacts": [{"glob": "m.json", "role": "metrics", "loader": "json"}],
                **spec,
            }
        )
    )
    variables = {"tenant_project": "vision", "tenant_state_dir": str(folder / "state")}
    return Watched([BoxHost("node-b", variables)], str(path))


@pytest.mark.parametrize(
    ("parts", "box", "counts"),
    [
        (["node-a", "node-b"], "node-a", False),
        (["node-a", "node-b"], "node-b", True),
        ([], "box-that-was-lost", True),
    ],
)
def test_a_share_of_another_box_says_nothing_of_this_ones(
    tmp_path: Path, parts: list[str], box: str, counts: bool
) -> None:
    (tmp_path / "code.py").touch()
    one = watched(tmp_path, parts=parts)
    path = StateStore(str(tmp_path / "state")).receipt_path("vision", "digits", box, 1)
    records.write_record(
        path, "receipt", {"complete": True, "box": box, "generation": 1, "spec_sha256": one.spec["spec_sha256"]}
    )
    assert [receipt["box"] for receipt in one._receipts()] == ([box] if counts else [])
