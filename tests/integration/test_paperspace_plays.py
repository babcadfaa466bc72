# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A machine's life by plain ``ansible-playbook``: planned, rented, trained on, shut down by somebody else, gone on
with, harvested and parked, and ended by the steps of a full stop, through the gate."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from team_folder import ENDED_WITHIN_S, ROOT, SIDES, TeamFolder

from gpu_tenant.marketplace.testing import Handle, running_marketplace

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="boxes with a root of their own need root"),
]

BOX, TYPE, REGION = "core-a", "A6000", "ca1"
# The first attempt saves and then stands until its machine is shut down; the next one goes on from there and ends.
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
    "id": "machines",
    "command": ["python", "train.py"],
    "artifacts": [{"glob": "model.json", "role": "metrics", "loader": "json"}],
    "resources": {"gpu_count": 1, "disk_gb": 10},
}


class Team(TeamFolder):
    def __init__(self, folder: Path, market: Handle) -> None:
        super().__init__(folder, market, [BOX], SPEC, TRAINER, "", platform="paperspace")
        self.write("job/small_trainer.py", (ROOT / "tests/integration/small_trainer.py").read_text())
        ours = {
            "provision_machine_types": [TYPE],
            "provision_region": REGION,
            "provision_template_id": "t0nspur5",
            "provision_public_ip_type": "static",
            "provision_auto_shutdown_hours": 48,
            "provision_price_cap": 2.5,
        }
        self.write("inventory/group_vars/paperspace.yml", yaml.safe_dump(ours))

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return self.market.request(method, SIDES["paperspace"] + path, body)

    def play(self, name: str, *words: str) -> str:
        done = self.play_on("paperspace", name, *words)
        said = done.stdout + done.stderr
        assert re.search(rf"^{BOX}\s.*failed=0", done.stdout, re.MULTILINE), said[-6000:]
        assert "DEPRECAT" not in said
        assert self.market.api_key not in said
        return " ".join(said.split())

    def items(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("GET", path)["items"]
        return found

    def await_checkpoint(self) -> None:
        boxes = self.market.state_dir / "boxes"
        deadline = time.monotonic() + ENDED_WITHIN_S
        while not list(boxes.rglob("step-*.pt")):
            assert time.monotonic() < deadline, [path.read_text() for path in boxes.rglob("run.log")]
            time.sleep(0.05)

    def approve(self) -> None:
        words = ["approve", "destroy", BOX, "--approver", "Ada", "--reason", "results are home", *self.sources()]
        given = subprocess.run(
            [sys.executable, "-m", "gpu_tenant", *words], capture_output=True, text=True, check=False
        )
        assert given.returncode == 0, given.stdout + given.stderr


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    with running_marketplace("process", api_key="planted-account-key", state_dir=tmp_path / "market") as market:
        if "its own user" not in market.engine["users"]:
            pytest.skip(f"NOT RUN: {market.engine['users']}")
        yield Team(tmp_path, market)


def test_the_life_of_a_machine(team: Team) -> None:
    planned = team.play("provision", "--check")
    assert '"price_per_hour": null' in planned, "an unknown price is not 0"
    assert '"auto_shutdown_hours": 48' in planned, "a danger clock is shown before it ticks"
    assert team.items("/machines") == []

    team.play("train")
    (rented,) = team.items("/machines")
    record = StateStore(str(team.state_dir)).read_box("plain", BOX, 1)
    assert record is not None
    assert (record["platform"], record["provider_id"]) == ("paperspace", rented["id"])
    assert record["admitted_at"] is not None
    assert rented["autoShutdownTimeout"] == 48
    team.await_checkpoint()
    team.ask("PATCH", f"/machines/{rented['id']}/stop", {})

    team.play("site", "-e", "train_wait_s=600")
    (machine,) = team.items("/machines")
    assert (machine["id"], machine["state"]) == (rented["id"], "off"), "gone on with, and parked once all was home"
    (home,) = (team.state_dir / "results").rglob("model.json")
    assert json.loads(home.read_text()) == {"resumed_from": 1}

    assert len(team.items("/public-ips")) == 1
    team.ask("POST", "/shared-drives", {"name": "sets", "networkId": "n1", "region": REGION, "size": 250})
    team.approve()
    ended = team.play("teardown")
    assert (team.items("/machines"), team.items("/public-ips"), team.items("/startup-scripts")) == ([], [], [])
    assert re.search(r"shared drive sd\w+ \(sets, .*\) bills on until a person deletes it in the console", ended)
