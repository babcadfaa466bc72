# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Ranks, really: gloo on the CPU, a replicated and a sharded model, one rank killed in the middle of a save, and the
example saved by four processes and resumed by two. The whole matrix is ``checkpoint_matrix.py``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parents[1] / "examples" / "digits"
HELPER = HERE.parents[1] / "roles" / "deploy" / "files"
# 1 takes every event, in an hour; CI takes a few, and of four ranks one event each.
STRIDE = os.environ.get("CHECKPOINT_RANK_STRIDE", "")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for the preloaded killer"),
]


@pytest.mark.parametrize(
    ("ways", "stride", "kills"),
    [
        pytest.param(["replicated:2", "sharded:2"], "151", 1, id="two ranks"),
        pytest.param(["sharded:4"], "1000000", 4, id="four ranks"),
    ],
)
def test_a_rank_killed_in_mid_save_costs_no_more_than_an_interval(ways: list[str], stride: str, kills: int) -> None:
    program = [sys.executable, HERE / "checkpoint_matrix.py", *ways, "--stride", STRIDE or stride]
    done = subprocess.run([*program, "--offset", "29"], capture_output=True, text=True, check=False, timeout=3600)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["way"] for line in lines] == ways
    for line in lines:
        assert line["kills"] >= kills, line
        # Ours in every column: what had to be done again, and what the cadence had said that may be.
        assert 0 <= line["lost"] <= line["interval"], line
        assert line["resumable"] == line["kills"], line
        assert line["diverged"] == 0, line
        assert line["lost_more"] == 0, line


def torchrun(processes: int, out: Path, *words: str) -> str:
    """The example as a user runs it."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environ = {**os.environ, "PYTHONPATH": str(HELPER), "PYTHONDONTWRITEBYTECODE": "1", "TENANT_MU_S": "2"}
    done = subprocess.run(
        [*command, "train_torchrun.py", "--epochs", "1", "--out", str(out), *words],
        cwd=EXAMPLE,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Sharded, each rank writes a part of its own, and only that of the fourth is torn; or what all ranks load and one of
# them compares. Replicated, rank 0 writes one file.
@pytest.mark.parametrize(
    ("words", "saved", "torn", "parts"),
    [
        pytest.param(
            ["--sharded"], "step-*.dcp", "__3_0.distcp", {f"rank-{rank}.pt" for rank in range(4)}, id="sharded"
        ),
        pytest.param(["--sharded"], "step-*.dcp", "common.pt", {"rank-3.pt"}, id="sharded, what all load"),
        pytest.param([], "step-*.pt", "", set(), id="replicated"),
    ],
)
def test_saved_by_four_ranks_and_resumed_by_two(
    tmp_path: Path, words: list[str], saved: str, torn: str, parts: set[str]
) -> None:
    assert "accuracy" in torchrun(4, tmp_path, *words)
    newest = max((tmp_path / "checkpoints").glob(saved))
    assert parts <= {path.name for path in newest.rglob("*")}
    # The one before it is taken. What torch makes of such bytes is no sign of damage: it calls them unsafe.
    (newest / torn).write_bytes(b"\xff" * (newest / torn).stat().st_size)
    assert "with 2 processes" in torchrun(2, tmp_path, *words)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["world"], metrics["step"]) == (2, 22)
    assert 0 < metrics["resumed_from"] < 22
    assert (tmp_path / "checkpoints" / "quarantine" / newest.name).exists()
