# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A run of two cells loses its box between them: the next box runs the second one and not the first again.

Boxes, sshd, supervisors and playbooks are real; nothing outlives the box but what came home.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from ssh_team import ssh_team
from supervised_box import SupervisedBox, wait_for

pytestmark = pytest.mark.integration

TRAINER = """\
import json, os, sys

cell, gate = sys.argv[1:]
with open(os.path.join(os.environ["TENANT_OUTPUT_DIR"], "metrics.json"), "w") as stream:
    json.dump({"cell": cell}, stream)
if cell == "second":
    with open(gate) as stream:
        stream.read()
"""


def spec(gate: Path) -> dict[str, Any]:
    return {
        "id": "pair",
        "command": ["python", "train.py"],
        "cells": [{"id": name, "args": [name, str(gate)]} for name in ("first", "second")],
        "artifacts": [{"glob": "metrics.json", "role": "metrics", "loader": "json"}],
        "resources": {"limits": {"min_free_bytes": 0, "min_free_inodes": 0}},
    }


def done_of(box: SupervisedBox, cell: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(box.layout.attempt("pair", cell, 1).done).read_text())
    return found


def test_a_cell_that_is_finished_at_home_is_not_run_again_on_the_next_box(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TRAINER)
    gate = tmp_path / "gate"
    with ssh_team(tmp_path, spec(gate), tmp_path / "train.py") as team:
        lost = team.rent("lost")
        os.mkfifo(gate)
        team.play("train", "lost")
        wait_for("the first cell to be done", lambda: lost.cell("first", "pair")["state"] == "done")
        wait_for("the second one to run", lambda: lost.cell("second", "pair")["liveness"] == "alive")
        finished = done_of(lost, "first")
        team.play("harvest", "lost", "-e", json.dumps({"harvest_snapshot": True}))
        lost.kill_everything()
        shutil.rmtree(lost.root)
        gate.unlink()
        gate.touch()

        following = team.rent("following")
        team.play("train", "following")
        following.await_state("done", "pair")
        assert done_of(following, "first") == finished
        attempt = Path(following.layout.attempt("pair", "first", 1).folder)
        assert {path.name for path in attempt.iterdir()} == {"done.json", "out", "run.log"}, "no trainer was there"
        assert Path(following.layout.attempt("pair", "second", 1).log).exists()

        # Both come home from the box that is there, and a second deploy leaves them alone.
        team.play("deploy", "following")
        team.play("harvest", "following")
        (receipt,) = (team.state_dir / "receipts").rglob("following*.json")
        assert json.loads(receipt.read_text())["complete"] is True
        home = team.results / "vision/pair/following/g1"
        assert sorted(path.parts[-3] for path in home.glob("*/a1/done.json")) == ["first", "second"]

        # Snapshots of it, whole and narrowed, take nothing of that out of force.
        before = [path.read_bytes() for path in (receipt, home / "manifest.json")]
        for look in ({}, {"harvest_roles": ["metrics"]}):
            team.play("harvest", "following", "-e", json.dumps({"harvest_snapshot": True, **look}))
            assert [path.read_bytes() for path in (receipt, home / "manifest.json")] == before
            assert (home.parent / "beside-g1").exists() is bool(look)
