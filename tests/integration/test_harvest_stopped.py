# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A box that was outbid before its harvest: its provider copies it to another box of ours, and it is verified there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import gate, holders, lease, leases
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from team_folder import TeamFolder

from gpu_tenant.marketplace.testing import Handle, running_marketplace

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="boxes with a root of their own need root"),
]

STOPPED, HELPER = "left-behind", "helper"
SECRET = "planted-tracker-secret-2718"
TRAINER = """\
import json, os, torch

out = os.environ["TENANT_OUTPUT_DIR"]
torch.save(torch.nn.Linear(64, 64).state_dict(), os.path.join(out, "model.pt"))
with open(os.path.join(out, "metrics.json"), "w") as stream:
    json.dump({"loss": 0.5}, stream)
"""
SPEC = {
    "id": "lost",
    "command": ["python", "train.py"],
    "secrets": ["TRACKER_KEY"],
    "artifacts": [
        {"glob": "model.pt", "role": "checkpoint", "loader": "torch"},
        {"glob": "metrics.json", "role": "metrics", "loader": "json"},
    ],
    "resources": {"gpu_count": 1, "disk_gb": 10},
}


class Team(TeamFolder):
    def __init__(self, folder: Path, market: Handle) -> None:
        super().__init__(folder, market, [STOPPED, HELPER], SPEC, TRAINER, SECRET)

    def played(self, name: str, box: str, *words: str) -> str:
        done = self.play_on(box, name, *words)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
        return done.stdout

    def harvest(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.play_on(STOPPED, "harvest", "-e", f"harvest_via={HELPER}", *words)

    def instance(self, box: str) -> dict[str, Any]:
        rows = self.market.state()["instances"]
        found: dict[str, Any] = next(row for row in rows if row["label"].split("/")[2] == box)
        return found

    def disk_of(self, box: str) -> Path:
        return self.disk(self.instance(box)["id"])

    def journal(self, verb: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (self.state_dir / "journal.jsonl").read_text().splitlines()]
        return [line for line in lines if line["verb"] == verb]


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """One box that was outbid when its run had just ended, and one that runs."""
    folder = tmp_path_factory.mktemp("stopped")
    with running_marketplace("process", speed=60.0, state_dir=folder / "market") as market:
        made = Team(folder, market)
        with ThreadPoolExecutor() as pool:
            list(pool.map(made.played, ("train", "provision"), (STOPPED, HELPER)))
        made.await_record(made.instance(STOPPED)["id"], "a1/done.json")
        market.preempt(made.instance(STOPPED)["id"])
        yield made


# The tests of this file are one story and run in this order.


def test_a_helper_that_somebody_works_on_is_left_alone(team: Team) -> None:
    kept, holder = leases.opened(StateStore(str(team.state_dir))), holders.myself()
    kept.take(lease.Ask("plain", HELPER, "a teardown", leases.nonce_of(holder), holder))
    try:
        done = team.harvest()
    finally:
        kept.release("plain", HELPER, holder)
    assert done.returncode != 0
    assert '"kind": "lease_held"' in done.stdout
    assert "a teardown" in done.stdout
    assert team.journal("copy") == []


def test_a_partial_copy_is_found_and_named(team: Team) -> None:
    team.market.request("POST", "/control/copy_fault", {"kind": "copy_partial", "path": "*/out/model.pt"})
    done = team.harvest()
    assert done.returncode != 0
    assert '"kind": "evidence_missing"' in done.stdout
    assert "model.pt is not what was verified" in done.stdout
    assert not list(team.state_dir.glob("receipts/**/*.json"))
    assert team.instance(STOPPED)["phase"] == "stopped", "a box that is copied must not revive meanwhile"
    assert not list((team.disk_of(HELPER) / "gpu-tenant-harvest").rglob("secrets.env"))


def test_the_stopped_box_is_harvested_through_the_other_one(team: Team) -> None:
    done = team.harvest()
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    (path,) = (team.state_dir / "receipts/plain/lost").glob("*.json")
    receipt = json.loads(path.read_text())
    assert receipt["complete"] is True, receipt["incomplete_because"]
    assert (receipt["box"], receipt["provider_id"]) == (STOPPED, str(team.instance(STOPPED)["id"]))
    home = team.state_dir / f"results/plain/lost/{STOPPED}/g1/main/a1/out/model.pt"
    assert home.read_bytes() == (team.disk_of(STOPPED) / "gpu-tenant/runs/lost/main/a1/out/model.pt").read_bytes()


def test_the_reading_says_what_it_was_read_from(team: Team) -> None:
    (path,) = (team.state_dir / "seals").rglob("*.json")
    reading = json.loads(path.read_text())
    assert reading["at_rest"]["dest"] == HELPER
    assert reading["at_rest"]["sealed_by"] == "controller"
    assert reading["problems"] == []


def test_the_copy_is_deleted_by_name_once_it_is_home(team: Team) -> None:
    assert not (team.disk_of(HELPER) / "gpu-tenant-harvest").exists()
    effect = team.journal("discard-copy")[-1]
    assert effect["kind"] == "effect"
    listed = {line["path"]: line["bytes"] for line in effect["listed"]}
    assert listed["runs/lost/main/a1/out/model.pt"] > 0
    assert (effect["files"], effect["bytes"]) == (len(listed), sum(listed.values()))


def test_a_second_harvest_copies_nothing(team: Team) -> None:
    copies = len(team.journal("copy"))
    done = team.harvest()
    assert done.returncode == 0, done.stdout[-4000:]
    assert "changed=0" in done.stdout
    assert len(team.journal("copy")) == copies


def test_teardown_of_the_stopped_box_needs_an_approval_and_no_more(team: Team) -> None:
    store = StateStore(str(team.state_dir))
    identity = BoxIdentity("plain", STOPPED, 1, str(team.instance(STOPPED)["id"]))
    view = gate.ProviderView("stopped", None, records.utc_now())
    refused = gate.decide(gate.gather(store, identity, "destroy", ["volume"], view))
    assert not refused.allowed
    assert len(refused.missing) == 1, refused.missing
    assert "nobody approved destroy" in refused.missing[0]
    words = ["approve", "destroy", STOPPED, "--approver", "Ada", "--reason", "results are home", *team.sources()]
    given = subprocess.run([sys.executable, "-m", "gpu_tenant", *words], capture_output=True, text=True, check=False)
    assert given.returncode == 0, given.stdout + given.stderr
    team.played("teardown", STOPPED)
    assert [row["label"].split("/")[2] for row in team.market.state()["instances"]] == [HELPER]
