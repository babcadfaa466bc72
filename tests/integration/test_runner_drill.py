# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant go --drill`` on the local marketplace: a run that would not survive a lost box is never trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpu_tenant import demo
from gpu_tenant.marketplace.testing import running_marketplace

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="boxes with a root of their own need root"),
]

TRAINER = Path(__file__).with_name("drilled_trainer.py")
RUN_S = 900.0


def go(folder: Path, inventories: list[str]) -> tuple[int, list[dict[str, Any]]]:
    sources = [word for path in inventories for word in ("-i", path)]
    command = [sys.executable, "-m", "gpu_tenant", "go", str(folder / "job" / "run.yml"), "-l", demo.BOX, "--json"]
    command += ["--workspace", str(folder / "runner"), "--poll-s", "0.5", "--pull-every-s", "0", "--drill"]
    done = subprocess.run([*command, *sources], capture_output=True, text=True, timeout=RUN_S, check=False)
    assert "Traceback" not in done.stdout + done.stderr, done.stderr[-3000:]
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def write_job(folder: Path, *arguments: str) -> None:
    spec = {
        "id": "doubtful",
        "command": ["python", "train.py", *arguments],
        "artifacts": [{"glob": "model.json", "role": "metrics", "loader": "json"}],
        "resources": {"gpu_name": "RTX 4090", "gpu_count": 1, "min_gpu_ram_gb": 20, "disk_gb": 10},
        "deadline_s": RUN_S,
    }
    (folder / "job").mkdir(exist_ok=True)
    (folder / "job" / "train.py").write_text(TRAINER.read_text())
    (folder / "job" / "run.yml").write_text(yaml.safe_dump(spec))


def test_go_refuses_a_run_that_starts_from_zero_and_trains_the_mended_one(tmp_path: Path) -> None:
    with running_marketplace("process", state_dir=tmp_path / "market") as market:
        inventories = demo._job_options(tmp_path, market, demo.DemoOptions()).inventories
        write_job(tmp_path, "--broken", "zero")
        code, said = go(tmp_path, inventories)
        assert code == 20, said[-3:]
        told = json.dumps(said)
        assert "run doubtful does not survive a kill" in told
        assert "did not go on from step" in told
        assert "the box is parked" in told
        verdicts = list(tmp_path.rglob("drills/*/doubtful/*.json"))
        assert [json.loads(path.read_text())["reason"] for path in verdicts] == ["started_again"]

        # Mended, the same command brings the same box up again, drills it, and trains.
        write_job(tmp_path, "--steps", "2000")
        code, said = go(tmp_path, inventories)
        assert (code, said[-1]["receipt"]["complete"]) == (0, True), said[-3:]
        assert said[-1]["unverified"] == []
        assert "killed in mid-training and started again: it went on from step" in json.dumps(said)
        (row,) = market.state()["instances"]
        assert row["label"].split("/")[3] == "g2", "the box that was drilled first is the one that trained"
