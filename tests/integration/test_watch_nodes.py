# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant watch`` over two rented boxes that train as one: losing one of them replaces that one.

Boxes are processes of the marketplace, each with a loopback address of its own; torch over gloo, real sshd, supervisors
and playbooks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from marketplace_tools import wait_until
from ports import free_port
from team_folder import PLAY_S, TeamFolder

from gpu_tenant.marketplace.testing import Handle, running_marketplace

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="boxes with a root of their own need root"),
]

ADDRESSES = {"node-a": "127.0.0.2", "node-b": "127.0.0.3"}
# As the boxes see it.
RELEASE = "/workspace/let-it-finish"
TRAINER = Path(__file__).with_name("wide_trainer.py")


class Team(TeamFolder):
    def __init__(self, folder: Path, market: Handle) -> None:
        super().__init__(folder, market, list(ADDRESSES), self._spec(), TRAINER.read_text(), "")
        own = {
            "platform_python": sys.executable,
            # They share this machine's loopback, which vast's boxes do not.
            "platform_private_network": True,
            "train_proof_within_s": 300,
            "tenant_rpo_s": 0,
        }
        self.write("inventory/group_vars/vast.yml", yaml.safe_dump(own))
        for name, address in ADDRESSES.items():
            self.write(f"inventory/host_vars/{name}.yml", yaml.safe_dump({"train_node_address": address}))

    def _spec(self) -> dict[str, Any]:
        return {
            "id": "wide",
            "command": ["python", "train.py", RELEASE],
            "artifacts": [
                {"glob": "checkpoints/step-*.pt", "role": "checkpoint", "loader": "torch"},
                {"glob": "metrics.json", "role": "metrics", "loader": "json"},
            ],
            "parts": list(ADDRESSES),
            "nodes": {"port": free_port("127.0.0.2"), "backend": "gloo", "interface": "lo", "wait_s": 300},
            "resources": {"gpu_count": 1, "disk_gb": 10},
        }

    def instances(self, box: str) -> list[int]:
        rows = self.market.state()["instances"]
        return sorted(int(row["id"]) for row in rows if f"/{box}/" in str(row["label"]))

    def saved(self, instance_id: int) -> list[Path]:
        return sorted((self.disk(instance_id) / "gpu-tenant/runs/wide/main").glob("a*/out/checkpoints/step-*"))

    def progress(self, instance_id: int) -> dict[int, list[dict[str, Any]]]:
        """What each attempt wrote of itself."""
        attempts = (self.disk(instance_id) / "gpu-tenant/runs/wide/main").glob("a*/metrics.jsonl")
        return {
            int(path.parent.name[1:]): [json.loads(line) for line in path.read_text().splitlines() if line]
            for path in attempts
        }

    def receipts(self) -> list[dict[str, Any]]:
        found = (self.state_dir / "receipts").rglob("*.json")
        return [json.loads(path.read_text()) for path in found]


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    with running_marketplace("process", state_dir=tmp_path / "market") as market:
        yield Team(tmp_path, market)


def test_losing_one_of_two_boxes_replaces_that_one_and_the_run_comes_home(team: Team) -> None:
    log = team.folder / "watch.log"
    settings = ["--poll-s", "0.5", "--json", "--workspace", str(team.folder / "runner")]
    with open(log, "wb") as stream:
        watch = subprocess.Popen(
            [sys.executable, "-m", "gpu_tenant", "watch", "-l", ",".join(ADDRESSES), *team.sources(), *settings],
            env={**os.environ, "VAST_API_KEY": ""},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )

    def until(condition: Any) -> None:
        wait_until(lambda: condition() or watch.poll() is not None, PLAY_S)
        assert watch.poll() is None, log.read_text()[-4000:]

    try:
        until(lambda: all(team.instances(name) for name in ADDRESSES))
        (first,), (lost,) = (team.instances(name) for name in ADDRESSES)
        # Which of the two rank 0 is on says torch's rendezvous, by their addresses.
        until(lambda: bool(team.saved(first)))

        team.market.request("DELETE", f"/api/v0/instances/{lost}/")
        until(lambda: bool(team.instances("node-b")) and team.instances("node-b") != [lost])
        until(lambda: any("resumed_from" in line for lines in team.progress(first).values() for line in lines))
        assert team.instances("node-a") == [first], "the box that was not lost stays"

        (team.disk(first) / Path(RELEASE).name).touch()
        until(lambda: len([one for one in team.receipts() if one.get("complete") is True]) == len(ADDRESSES))
    finally:
        watch.kill()
        watch.wait()
    resumed = [line for lines in team.progress(first).values() for line in lines if "resumed_from" in line]
    assert resumed[-1]["resumed_from"] > 0
    metrics = list((team.state_dir / "results").rglob("metrics.json"))
    assert json.loads(metrics[0].read_text())["resumed"] == resumed[-1]["resumed_from"]
    assert {one["box"] for one in team.receipts()} == set(ADDRESSES)
    assert len(team.instances("node-b")) == 1, "nobody was rented twice"
