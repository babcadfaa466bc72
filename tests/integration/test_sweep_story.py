# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A sweep over two boxes that really run, one of which is lost: its cell moves to the other, and no box goes before
every cell is home and sound, whoever consented to that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import approvals
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from marketplace_tools import wait_until
from team_folder import PLAY_S, TeamFolder, held_spec

from gpu_tenant.marketplace.testing import Handle, running_marketplace

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="boxes with a root of their own need root"),
]

KEPT, LOST = "box-1", "box-2"
# Each cell ends on a box where the test lets it.
TRAINER = """\
import json, os, time

with open(os.path.join(os.environ["TENANT_CHECKPOINT_DIR"], "step-0000000001.json"), "w") as stream:
    json.dump({"step": 1, "cell": os.environ["TENANT_CELL"]}, stream)
while not os.path.exists("/workspace/end-" + os.environ["TENANT_CELL"]):
    time.sleep(0.1)
with open(os.path.join(os.environ["TENANT_OUTPUT_DIR"], "metrics.json"), "w") as stream:
    json.dump({"step": 1}, stream)
"""


class Team(TeamFolder):
    def __init__(self, folder: Path, market: Handle) -> None:
        spec = {**held_spec("grid"), "cells": [{"id": "narrow"}, {"id": "wide"}]}
        super().__init__(folder, market, [KEPT, LOST], spec, TRAINER, "")
        self.store = StateStore(str(self.state_dir))

    def _variables(self) -> dict[str, Any]:
        # As docs/sweeps.md has it: each box works on its own share.
        share = "{{ inventory_dir }}/../job/.tenant/sweeps/grid/{{ inventory_hostname }}.yml"
        return {**super()._variables(), "tenant_run": share, "harvest_park": False}

    def sweep(self, verb: str, *words: str, limit: str = f"{KEPT},{LOST}") -> tuple[int, list[dict[str, Any]]]:
        command = [sys.executable, "-m", "gpu_tenant", "sweep", verb, str(self.folder / "job/run.yml"), *words]
        done = subprocess.run(
            [*command, "-l", limit, *self.sources(), "--json"],
            capture_output=True, text=True, timeout=PLAY_S, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    def shares(self, verb: str, *words: str, limit: str = f"{KEPT},{LOST}") -> dict[str, dict[str, Any]]:
        code, told = self.sweep(verb, *words, limit=limit)
        assert code == 0, told
        return {share["run"]: share for share in told}

    def problems(self) -> list[tuple[str, str]]:
        code, (told,) = self.sweep("check")
        assert code == (21 if told["problems"] else 0)
        return [(problem["kind"], problem["cell"]) for problem in told["problems"]]

    def played(self, name: str, box: str, *words: str) -> None:
        done = self.play_on(box, name, *words)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]

    def refusal(self) -> str:
        """Why the teardown of the box that is left was refused."""
        done = self.play_on(KEPT, "teardown")
        assert done.returncode != 0, done.stdout[-3000:]
        return " ".join(done.stdout.replace("\\n", " ").split())

    def instance(self, box: str) -> int:
        (row,) = [row for row in self.market.state()["instances"] if f"/{box}/" in row["label"]]
        return int(row["id"])

    def end(self, box: str, cell: str) -> None:
        (self.disk(self.instance(box)) / f"end-{cell}").touch()

    def vanish(self, box: str) -> None:
        number = self.instance(box)
        self.market.request("DELETE", f"/api/v0/instances/{number}/")
        self.market.wait_for(number, lambda row: row is None)

    def consent(self) -> None:
        """A standing approval: the box may go as soon as its evidence is home."""
        box = BoxIdentity("plain", KEPT, 1, str(self.instance(KEPT)))
        who = {"approver": "ada", "source": {"kind": "cli", "ref": "test"}, "reason": "the sweep ends tonight"}
        approvals.give(self.store, box, "destroy", {"kind": "complete_receipt"}, **who)


def test_the_cell_of_a_lost_box_moves_and_the_gate_waits_for_the_whole_sweep(tmp_path: Path) -> None:
    with running_marketplace("process", state_dir=tmp_path / "market") as market:
        team = Team(tmp_path, market)
        shared = team.shares("split")
        (mine,), (theirs,) = shared[f"grid.{KEPT}"]["cells"], shared[f"grid.{LOST}"]["cells"]
        team.played("train", f"{KEPT},{LOST}")
        started = team.disk(team.instance(LOST)) / f"gpu-tenant/runs/grid.{LOST}/{theirs}/a1/out/checkpoints"
        wait_until(lambda: bool(list(started.glob("step-*.json"))))
        team.vanish(LOST)
        team.end(KEPT, mine)
        finished = team.disk(team.instance(KEPT)) / f"gpu-tenant/runs/grid.{KEPT}/{mine}/a1/done.json"
        wait_until(finished.exists)
        team.played("harvest", KEPT)

        team.consent()
        said = team.refusal()
        assert f"sweep grid: missing: cell {theirs} is not home; harvest run grid.{LOST} when it is done" in said
        assert team.instance(KEPT)

        moved = team.shares("move", LOST, limit=KEPT)
        taken = moved[f"grid.{KEPT}.m2"]
        assert (taken["cells"], moved[f"grid.{LOST}"]["cells"]) == ([theirs], [])
        assert team.problems() == [("missing", theirs)]
        team.end(KEPT, theirs)
        # Its own share was harvested, so it is sealed.
        again = {"tenant_run": taken["spec"], "train_wait_s": 600, "deploy_unseal": True}
        team.played("site", KEPT, "-e", json.dumps(again))
        assert team.problems() == []

        (kept,) = (team.state_dir / "results").rglob(f"{theirs}/a1/out/checkpoints/step-0000000001.json")
        whole = kept.read_bytes()
        kept.write_bytes(whole[:-1])
        assert team.problems() == [("unloadable", theirs)]
        kept.write_bytes(whole)
        attempts = {
            path.parts[-3]: path.parts[-2]
            for path in team.disk(team.instance(KEPT)).glob("gpu-tenant/runs/*/*/a*/done.json")
        }
        assert attempts == {mine: "a1", theirs: "a1"}, "what was done was not trained again"
        team.played("teardown", KEPT)
        assert team.market.state()["instances"] == []
