# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A pod's life by plain ``ansible-playbook``: planned, rented, trained on, stopped by somebody else, gone on with where
its port is another one, harvested and parked, and terminated through the gate."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from team_folder import ENDED_WITHIN_S, ROOT, TeamFolder

from gpu_tenant.marketplace.runpod.pods import own_volume
from gpu_tenant.marketplace.runpod.terms import pod_id
from gpu_tenant.marketplace.testing import Handle, running_marketplace

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="boxes with a root of their own need root"),
]

BOX = "pod-a"
GPU = "NVIDIA GeForce RTX 4090"
# The first attempt saves and then stands until its pod is stopped; the next one goes on from there and ends.
TRAINER = """\
import json, os, signal
from small_trainer import note, resumed_step, save

step = resumed_step()
if not step:
    save(os.path.join(os.environ["TENANT_CHECKPOINT_DIR"], "step-0000000001.pt"), 1)
    note(step=1, steps=2)
    signal.pause()
with open(os.path.join(os.environ["TENANT_OUTPUT_DIR"], "model.json"), "w") as stream:
    json.dump({"resumed_from": step}, stream)
"""
SPEC: dict[str, Any] = {
    "id": "pods",
    "command": ["python", "train.py"],
    "artifacts": [{"glob": "model.json", "role": "metrics", "loader": "json"}],
    "resources": {"gpu_count": 1, "disk_gb": 10},
}


class Team(TeamFolder):
    def __init__(self, folder: Path, market: Handle) -> None:
        super().__init__(folder, market, [BOX], SPEC, TRAINER, "", platform="runpod")
        self.write("job/small_trainer.py", (ROOT / "tests/integration/small_trainer.py").read_text())
        ours = {"provision_gpu_types": [GPU], "provision_cloud_type": "community"}
        self.write("inventory/group_vars/runpod.yml", yaml.safe_dump(ours))

    def play(self, name: str, *words: str) -> str:
        done = self.play_on("runpod", name, *words)
        said = done.stdout + done.stderr
        assert re.search(rf"^{BOX}\s.*failed=0", done.stdout, re.MULTILINE), said[-6000:]
        assert "DEPRECAT" not in said
        assert self.market.api_key not in said
        return " ".join(said.split())

    def pods(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.market.state()["instances"]
        return found

    def await_checkpoint(self) -> None:
        (pod,) = self.pods()
        volume = own_volume(self.market.state_dir / "volumes", pod["id"])
        deadline = time.monotonic() + ENDED_WITHIN_S
        while not list(volume.rglob("step-*.pt")):
            assert time.monotonic() < deadline, [path.read_text() for path in volume.rglob("run.log")]
            time.sleep(0.05)

    def stop_behind_our_back(self) -> None:
        (pod,) = self.pods()
        url = f"{self.market.url}/v1/pods/{pod_id(pod['id'])}/stop"
        asked = urllib.request.Request(url, method="POST", headers={"Authorization": f"Bearer {self.market.api_key}"})
        with urllib.request.urlopen(asked, timeout=600) as answer:
            assert json.load(answer)["desiredStatus"] == "EXITED"

    def approve(self) -> None:
        words = ["approve", "destroy", BOX, "--approver", "Ada", "--reason", "results are home", *self.sources()]
        given = subprocess.run(
            [sys.executable, "-m", "gpu_tenant", *words], capture_output=True, text=True, check=False
        )
        assert given.returncode == 0, given.stdout + given.stderr


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    with running_marketplace("process", api_key="planted-account-key", state_dir=tmp_path / "market") as market:
        yield Team(tmp_path, market)


def test_the_life_of_a_pod(team: Team) -> None:
    planned = team.play("provision", "--check")
    assert '"price_per_hour": null' in planned, "an unknown price is not 0"
    assert team.pods() == []

    team.play("train")
    (rented,) = team.pods()
    record = StateStore(str(team.state_dir)).read_box("plain", BOX, 1)
    assert record is not None
    assert (record["platform"], record["provider_id"]) == ("runpod", pod_id(rented["id"]))
    assert record["admitted_at"] is not None
    team.await_checkpoint()
    team.stop_behind_our_back()

    team.play("site", "-e", "train_wait_s=600")
    (pod,) = team.pods()
    assert (pod["id"], pod["phase"]) == (rented["id"], "stopped"), "gone on with, and parked once its results were home"
    assert pod["ports"] != rented["ports"], "found where its new port is, by the key that was pinned"
    (home,) = (team.state_dir / "results").rglob("model.json")
    assert json.loads(home.read_text()) == {"resumed_from": 1}

    team.approve()
    team.play("teardown")
    assert team.pods() == []
