# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A run was taken from one candidate to the next, and left a machine there that had been replaced before.

At its deadline ``watch`` tells people of it, and ends it once they consent. Boxes, sshd, supervisors and playbooks are
real.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from team_folder import HELD_TRAINER, PLAY_S, TeamFolder, held_spec

from gpu_tenant import exit_codes
from gpu_tenant.marketplace.testing import Handle, running_marketplace

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="boxes with a root of their own need root"),
]

LEFT, AT_WORK = "night-a", "night-b"


class Team(TeamFolder):
    def __init__(self, folder: Path, market: Handle) -> None:
        spec = {**held_spec("moved"), "candidates": [LEFT, AT_WORK]}
        super().__init__(folder, market, [LEFT, AT_WORK], spec, HELD_TRAINER, "")

    def played(self, box: str, name: str, *words: str) -> None:
        done = self.play_on(box, name, *words)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]

    def phases(self) -> dict[str, str]:
        """Of each machine, by box and generation."""
        rows = self.market.state()["instances"]
        return {"/".join(str(row["label"]).split("/")[2:4]): str(row["phase"]) for row in rows}

    def id_of(self, machine: str) -> int:
        rows = self.market.state()["instances"]
        return int(next(row["id"] for row in rows if f"/{machine}/" in str(row["label"])))

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gpu_tenant", *words, *self.sources()]
        return subprocess.run(
            command, env={**os.environ, "VAST_API_KEY": ""}, capture_output=True, text=True, timeout=PLAY_S, check=False
        )

    def watched_once(self) -> tuple[int, list[dict[str, Any]]]:
        workspace = str(self.folder / "runner")
        done = self.cli("watch", "-l", f"{LEFT},{AT_WORK}", "--once", "--json", "--workspace", workspace)
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    def consent_to_loss(self, machine: str) -> None:
        box, _slash, generation = machine.partition("/g")
        words = [
            "approve",
            "destroy",
            box,
            "--generation",
            generation,
            "--approver",
            "ada",
            "--reason",
            "of no use",
            "--loss",
        ]
        shown = self.cli(*words)
        named = re.search(r"--loss-id ([0-9a-f]{12})", shown.stdout + shown.stderr)
        assert named, shown.stdout + shown.stderr
        given = self.cli(*words, "--loss-id", named[1])
        assert given.returncode == 0, given.stdout + given.stderr


def test_a_machine_that_was_replaced_on_the_candidate_left_behind_is_not_forgotten(tmp_path: Path) -> None:
    with running_marketplace("process", speed=60.0, state_dir=tmp_path / "market") as market:
        team = Team(tmp_path, market)
        team.played(LEFT, "train")
        team.rent_another(LEFT, 2)
        team.played(LEFT, "provision")
        team.played(LEFT, "provision", "-e", "tenant_state=parked")
        team.played(AT_WORK, "train")
        whole = {f"{LEFT}/g1": "stopped", f"{LEFT}/g2": "stopped", f"{AT_WORK}/g1": "running"}
        assert team.phases() == whole

        code, said = team.watched_once()
        assert code == 0, said
        (row,) = [line for line in said if line["event"] == "note" and line["box"] == LEFT]
        assert (row["verdict"], row["superseded"]) == ("stopped", 1)
        assert f"run moved is on {AT_WORK}" in row["text"]
        assert team.phases() == whole, "there is time"

        day_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=26)
        StateStore(str(team.state_dir)).update_box("plain", LEFT, 2, admitted_at=records.utc_text(day_ago))
        code, said = team.watched_once()
        assert code == exit_codes.of_kind("gate_refused"), said
        told = [line["text"] for line in said if line["event"] == "warning" and line["box"] == LEFT]
        assert any("was replaced, is past its deadline and bills" in text for text in told), told
        assert team.phases() == whole, "nobody knows how far it got, so the gate keeps it"

        team.consent_to_loss(f"{LEFT}/g1")
        team.watched_once()
        assert team.phases() == {machine: phase for machine, phase in whole.items() if machine != f"{LEFT}/g1"}
        code, said = team.watched_once()
        assert code == 0, said
