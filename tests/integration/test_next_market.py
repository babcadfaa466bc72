# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A run whose box is gone for good goes on where another market has one: from what was pulled home, by the same
command. Both sides of the marketplace, their boxes, sshd, supervisors and playbooks are real."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from go_process import GoProcess
from team_folder import LOST_TRAINER, SIDES, TeamFolder, held_spec
from team_market import team_at_market

from gpu_tenant import decide, recoveries
from gpu_tenant.marketplace.testing import Handle

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="boxes with a root of their own need root"),
]

FIRST, NEXT = "vast-a", "pod-a"


class Team(TeamFolder):
    def __init__(self, folder: Path, market: Handle) -> None:
        spec = {**held_spec("moved"), "candidates": [FIRST, "runpod"]}
        super().__init__(folder, market, [FIRST], spec, LOST_TRAINER, "")
        groups = {"vast": {"hosts": {FIRST: {}}}, "runpod": {"hosts": {NEXT: {}}}}
        self.write("inventory/hosts.yml", yaml.safe_dump(groups))
        pods = {
            "runpod_api_url": market.url + SIDES["runpod"],
            "runpod_api_key_file": str(folder / "key"),
            "provision_gpu_types": ["NVIDIA GeForce RTX 4090"],
            "provision_cloud_type": "community",
        }
        self.write("inventory/group_vars/runpod.yml", yaml.safe_dump(pods))
        self.store = StateStore(str(self.state_dir))
        self.started: list[GoProcess] = []

    def go(self) -> GoProcess:
        self.started.append(GoProcess(self, f"{FIRST},{NEXT}", "--pull-every-s", "1"))
        return self.started[-1]

    def results(self, box: str) -> Path:
        return self.state_dir / f"results/plain/moved/{box}/g1/main/a1/out"

    def has_pulled(self) -> bool:
        """Whether a checkpoint is home, and the play that brought it has ended."""
        history = self.folder / "runner/history/plain.moved.jsonl"
        is_home = bool(list(self.results(FIRST).glob("checkpoints/*")))
        return is_home and history.exists() and '"pull"' in history.read_text()

    def lose_for_good(self, runner: GoProcess) -> None:
        """At its next look the box is gone, and its market has nothing else: as often as it may, it has asked."""
        runner.stand_still()
        self.market.inject(kind="empty_list", call="search", times=None)
        (row,) = self.market.state()["instances"]
        self.market.request("DELETE", f"/api/v0/instances/{row['id']}/")
        self.market.wait_for(row["id"], lambda one: one is None)
        tried = decide.Action(decide.NEXT_OFFER, "it is gone")
        lost = BoxIdentity("plain", FIRST, 1, str(row["id"]))
        for _try in range(decide.Limits().next_offer):
            recoveries.begin(Journal(self.store), lost, tried, "moved", "absent", row["machine_id"])
        runner.go_on()


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    with team_at_market(Team, tmp_path) as made:
        yield made


def test_a_run_that_is_lost_on_one_market_goes_on_and_comes_home_from_the_next(team: Team) -> None:
    runner = team.go()
    runner.until("a checkpoint came home", lambda: runner.looks() > 0 and team.has_pulled())
    team.lose_for_good(runner)

    assert runner.end() == 0, runner.said[-3:]
    account = runner.said[-1]
    assert account["event"] == "account"
    assert account["verified"], account["unverified"]
    assert (account["receipt"]["box"], account["receipt"]["generation"]) == (NEXT, 1)
    assert account["resumed_from"] == {"main": 1}
    assert account["steps"] == {"main": 2}
    assert json.loads((team.results(NEXT) / "metrics.json").read_text()) == {"step": 2}
    attempts = [path.name for path in team.results(NEXT).parents[1].iterdir()]
    assert attempts == ["a1"], "it was started there once"
    rents = [line for line in Journal(team.store).lines() if (line["verb"], line["kind"]) == ("rent", "effect")]
    assert [line["box"] for line in rents if line["provider_id"]] == [FIRST, NEXT]
    (pod,) = team.market.state()["instances"]
    assert pod["phase"] == "stopped", "it rests once its results are home"
