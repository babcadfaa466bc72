# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A failed run, harvested by the plain playbook: what it left comes home, and its box stops billing for the GPU."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from team_folder import TeamFolder

from gpu_tenant.marketplace.testing import Handle, running_marketplace

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="boxes with a root of their own need root"),
]

BOX = "mistaken"
TRAINER = """\
import json, os, sys

with open(os.path.join(os.environ["TENANT_OUTPUT_DIR"], "metrics.json"), "w") as stream:
    json.dump({"loss": 0.5}, stream)
sys.exit("the data is not there")
"""
SPEC = {
    "id": "failing",
    "command": ["python", "train.py"],
    "artifacts": [{"glob": "metrics.json", "role": "metrics", "loader": "json"}],
    "resources": {"gpu_count": 1, "disk_gb": 10},
}


class Team(TeamFolder):
    def __init__(self, folder: Path, market: Handle) -> None:
        super().__init__(folder, market, [BOX], SPEC, TRAINER, "a-secret-that-is-not-used")

    def played(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        done = self.play_on(BOX, name, *words)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
        return done

    @property
    def phase(self) -> str:
        (row,) = self.market.state()["instances"]
        return str(row["phase"])

    def wait_for_failure(self) -> None:
        (row,) = self.market.state()["instances"]
        self.await_record(row["id"], "a*/exit.json")


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("failed")
    with running_marketplace("process", speed=60.0, state_dir=folder / "market") as market:
        yield Team(folder, market)


def test_the_box_of_a_failed_run_is_parked_once_what_it_left_is_home(team: Team) -> None:
    # It fails as well where the run is quicker than its look for life.
    team.play_on(BOX, "train")
    team.wait_for_failure()
    team.played("harvest", "-e", json.dumps({"harvest_park_failed": False}))
    assert team.phase == "running", "who tries again in place keeps it"
    (path,) = (team.state_dir / "receipts/plain/failing").glob("*.json")
    receipt = json.loads(path.read_text())
    assert (receipt["run_state"], receipt["home"], receipt["complete"]) == ("failed", False, False)
    team.played("harvest")
    assert team.phase == "stopped"
    (row,) = team.market.state()["instances"]
    assert (team.state_dir / f"results/plain/failing/{BOX}/g1").is_dir(), row
    record = json.loads((team.state_dir / f"boxes/plain/{BOX}/g1.json").read_text())
    assert record["parked_at"], "the gate rests on it"
