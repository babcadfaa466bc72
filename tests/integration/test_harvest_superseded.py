# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A box that another one replaced, past its deadline: stopped, harvested from its stopped disk, ended by the gate."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import approvals
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from team_folder import TeamFolder

from gpu_tenant.marketplace.testing import running_marketplace

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="boxes with a root of their own need root"),
]

BOX = "worker"
TRAINER = """\
import json, os

with open(os.path.join(os.environ["TENANT_OUTPUT_DIR"], "metrics.json"), "w") as stream:
    json.dump({"loss": 0.5}, stream)
"""
SPEC = {
    "id": "twice",
    "command": ["python", "train.py"],
    "artifacts": [{"glob": "metrics.json", "role": "metrics", "loader": "json"}],
    "resources": {"gpu_count": 1, "disk_gb": 10},
}


class Team(TeamFolder):
    def played(self, name: str) -> str:
        done = self.play_on(BOX, name)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
        return done.stdout

    def instances(self) -> dict[int, dict[str, Any]]:
        """By generation."""
        rows = self.market.state()["instances"]
        return {int(row["label"].split("/")[3][1:]): row for row in rows}

    def await_done(self, generation: int) -> None:
        self.await_record(self.instances()[generation]["id"], "a1/done.json")


def test_law_2_an_overdue_superseded_box_comes_home_and_goes_through_the_gate(tmp_path: Path) -> None:
    with running_marketplace("process", speed=60.0, state_dir=tmp_path / "market") as market:
        team = Team(tmp_path, market, [BOX], SPEC, TRAINER, "")
        team.played("train")
        team.await_done(1)
        team.rent_another(BOX, 2)
        team.played("train")
        team.await_done(2)
        assert team.instances()[1]["phase"] == "stopped", "what was replaced is stopped at once"
        store = StateStore(str(team.state_dir))
        day_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=25)
        store.update_box("plain", BOX, 2, admitted_at=records.utc_text(day_ago))
        old = BoxIdentity("plain", BOX, 1, str(team.instances()[1]["id"]))
        who = {"approver": "ada", "source": {"kind": "cli", "ref": "test"}, "reason": "it was replaced"}
        approvals.give(store, old, "destroy", {"kind": "complete_receipt"}, **who)

        team.played("harvest")
        receipts = {
            path.stem: json.loads(path.read_text()) for path in (team.state_dir / "receipts/plain/twice").glob("*.json")
        }
        assert {name: receipt["complete"] for name, receipt in receipts.items()} == {
            f"{BOX}.g1": True,
            f"{BOX}.g2": True,
        }
        assert receipts[f"{BOX}.g1"]["provider_id"] == old.provider_id
        assert list(team.instances()) == [2], "its evidence was home and somebody had approved"
        assert team.instances()[2]["phase"] == "stopped", "the box that counts is parked after its own harvest"
        lines = [json.loads(line) for line in (team.state_dir / "journal.jsonl").read_text().splitlines()]
        (ended,) = [line for line in lines if (line["kind"], line["verb"]) == ("effect", "destroy")]
        assert (ended["generation"], ended["rule"], ended["provider_id"]) == (1, "standing_approval", old.provider_id)
