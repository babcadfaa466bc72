# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant rehearse`` from beginning to end, with a team's own inventory and run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from team_folder import LOST_TRAINER, held_spec

from gpu_tenant import rehearsal_script

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="boxes with a root of their own need root"),
]

BOX = "night-1"
DEADLINE_S = 900.0
# Slow enough to be seen at work, and no load: what is rehearsed is everything around it.
TRAINER = """\
import json, os, sys, time, torch
from tenant_checkpoint import EXIT_STOPPED, Checkpointer

out = os.environ["TENANT_OUTPUT_DIR"]
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
checkpoints = Checkpointer({"model": model, "optimizer": optimizer}, longest_interval_s=1, metrics_every=20)
checkpoints.load_latest()
while checkpoints.step < 600:
    torch.manual_seed(checkpoints.step)
    optimizer.zero_grad()
    loss = (model(torch.randn(8, 4)) ** 2).mean()
    loss.backward()
    optimizer.step()
    checkpoints.after_step(loss=loss.item())
    time.sleep(0.02)
    if checkpoints.should_stop:
        sys.exit(EXIT_STOPPED)
checkpoints.save(wait=True)
torch.save(model.state_dict(), os.path.join(out, "model.pt"))
with open(os.path.join(out, "metrics.json"), "w") as stream:
    json.dump({"loss": loss.item()}, stream)
"""
SPEC = {
    "id": "nightly",
    "command": ["python", "train.py"],
    "artifacts": [
        {"glob": "model.pt", "role": "checkpoint", "loader": "torch"},
        {"glob": "checkpoints/step-*.pt", "role": "checkpoint", "loader": "torch"},
        {"glob": "metrics.json", "role": "metrics", "loader": "json"},
    ],
    "resources": {"gpu_count": 1, "disk_gb": 10},
    "deadline_s": DEADLINE_S,
}


def team(folder: Path, trainer: str, spec: dict[str, Any]) -> list[str]:
    """An inventory that names a real account: a rehearsal must never ask it anything."""
    variables = {
        "tenant_project": "nights",
        "tenant_run": str(folder / "run.yml"),
        "tenant_state_dir": str(folder / "the-real-state"),
        "vast_api_url": "http://192.0.2.1:9",
        "vast_api_key": "the-real-key-of-the-team",
        "provision_price_cap": 0.6,
        "provision_require_cuda": False,
    }
    (folder / "train.py").write_text(trainer)
    (folder / "run.yml").write_text(yaml.safe_dump(spec))
    (folder / "profiles.yml").write_text("plugin: tenant.gpu.profiles\n")
    hosts = {"vast": {"hosts": {BOX: variables}}}
    (folder / "hosts.yml").write_text(yaml.safe_dump(hosts))
    return ["-i", str(folder / "profiles.yml"), "-i", str(folder / "hosts.yml")]


def rehearsed(folder: Path, script: str, inventories: list[str], *words: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code, and what was said; the last of it is the table."""
    given = [*inventories, "-l", BOX, "--run", str(folder / "run.yml"), *words, "--json"]
    command = [sys.executable, "-m", "gpu_tenant", "rehearse", script, *given]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    said: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert said, done.stderr[-3000:]
    assert said[-1]["event"] == "rehearsal", done.stdout[-3000:] + done.stderr[-3000:]
    assert [finding for finding in said[-1]["findings"] if not finding["held"]] == []
    assert not (folder / "the-real-state").exists()
    assert "the-real-key-of-the-team" not in done.stdout + done.stderr
    return done.returncode, said


def test_a_run_survives_a_lost_answer_and_an_empty_list_after_a_drill(tmp_path: Path) -> None:
    code, said = rehearsed(tmp_path, "lost-create", team(tmp_path, TRAINER, SPEC), "--drill")
    told = said[-1]
    assert (code, told["held"]) == (0, True)
    assert {finding["what"] for finding in told["findings"]} >= {
        "fault from the start: lost_answer",
        "the provider's list is empty",
        "results are home and verified",
        "at most 1 boxes were rented",
    }
    assert "killed in mid-training and started again: it went on from step" in json.dumps(said)


# What is lost is what the trainer waits for, so each script is over as soon as its faults are.
@pytest.mark.parametrize("name", [name for name in rehearsal_script.shipped() if name != "lost-create"])
def test_a_run_survives_the_loss_of_its_box_by_every_script_that_ships(tmp_path: Path, name: str) -> None:
    spec = {**held_spec("nightly"), "deadline_s": DEADLINE_S}
    code, said = rehearsed(tmp_path, name, team(tmp_path, LOST_TRAINER, spec))
    script, seen = rehearsal_script.read(name), {one["what"]: one["seen"] for one in said[-1]["findings"]}
    assert (code, said[-1]["script"]) == (0, name)
    assert set(seen) >= {step.tell for step in script.steps}
    assert seen["training went on from a checkpoint"] == "step 1"
