# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A pod's life by plain ``ansible-playbook``: planned, rented, admitted, parked, ended by the gate."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from team_folder import TeamFolder

from gpu_tenant.marketplace.runpod.terms import pod_id
from gpu_tenant.marketplace.testing import running_marketplace

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="boxes with a root of their own need root"),
]

BOX = "pod-a"
GPU = "NVIDIA GeForce RTX 4090"
SPEC: dict[str, Any] = {
    "id": "pods",
    "command": ["python", "train.py"],
    "artifacts": [{"glob": "model.json", "role": "metrics", "loader": "json"}],
    "resources": {"gpu_count": 1, "disk_gb": 10},
}


class Team(TeamFolder):
    def __init__(self, folder: Path, market: Any) -> None:
        super().__init__(folder, market, [BOX], SPEC, "", "", platform="runpod")
        ours = {"provision_gpu_types": [GPU], "provision_cloud_type": "community"}
        self.write("inventory/group_vars/runpod.yml", yaml.safe_dump(ours))

    def play(self, name: str, *words: str, failed: int = 0) -> str:
        done = self.play_on("runpod", name, *words)
        said = done.stdout + done.stderr
        assert re.search(rf"^{BOX}\s.*failed={failed}", done.stdout, re.MULTILINE), said[-6000:]
        assert "DEPRECAT" not in said
        assert self.market.api_key not in said
        return " ".join(said.split())

    def pods(self) -> list[dict[str, Any]]:
        return [one for one in self.market.state()["instances"] if one.get("pod")]


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    with running_marketplace("process", api_key="planted-account-key", state_dir=tmp_path / "market") as market:
        yield Team(tmp_path, market)


def test_the_life_of_a_pod(team: Team) -> None:
    planned = team.play("provision", "--check")
    assert '"price_per_hour": null' in planned, "an unknown price is not 0"
    assert team.pods() == []

    team.play("provision")
    (pod,) = team.pods()
    record = StateStore(str(team.state_dir)).read_box("plain", BOX, 1)
    assert record is not None
    assert (record["platform"], record["provider_id"]) == ("runpod", pod_id(pod["id"]))
    assert record["admitted_at"] is not None

    parked = team.play("provision", "-e", "tenant_state=parked")
    assert "changed: [pod-a -> localhost]" in parked
    assert "unreachable=0" in parked
    again = team.play("provision", "-e", "tenant_state=parked")
    assert "changed=0" in again

    # Nothing was deployed, so the gate lets it go without a person.
    ended = team.play("teardown")
    assert "Terminate the pod and wait until it is gone" in ended
    assert team.pods() == []
