# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A box that was started without its GPU (AutoDL's 无卡模式): enough to deploy, and never admitted to train."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ssh_team import ssh_team

pytestmark = pytest.mark.integration
SPEC = {
    "id": "digits",
    "command": ["python", "train.py"],
    "artifacts": [{"glob": "m.pt", "role": "checkpoint"}],
    # No machine that tests run on has it.
    "resources": {"gpu_name": "RTX 4090", "gpu_count": 1},
}


def test_a_box_without_its_gpu_is_deployed_to_and_refused_for_training(tmp_path: Path) -> None:
    with ssh_team(tmp_path, SPEC) as team:
        box = team.rent("b1")
        team.play("provision", "b1", "-e", "provision_gpu_required=false")
        record = StateStore(str(team.state_dir)).read_box("vision", "b1", 1) or {}
        assert not record.get("admitted_at"), "nobody has seen its GPU"
        team.play("deploy", "b1")
        assert list(box.root.glob("code/*/train.py"))
        refused = " ".join(team.play("provision", "b1", ok=False).split())
        assert "GPU" in refused.partition("the probe refused this box: ")[2].partition(". ")[0]
