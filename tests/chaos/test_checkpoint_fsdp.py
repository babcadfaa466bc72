# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""FullyShardedDataParallel as it was before ``fully_shard``: without a device_mesh its pieces are no DTensors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
HELPER = HERE.parents[1] / "roles" / "deploy" / "files"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

pytestmark = pytest.mark.integration


def train(out: Path, steps: int, *options: str) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    command = [*TORCHRUN, HERE / "fsdp_training.py", "--out", out, "--steps", str(steps), *options]
    environ = {**os.environ, "PYTHONPATH": str(HELPER), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads((out / "answer.json").read_text())
    return answer


@pytest.mark.parametrize("options", [[], ["--mesh"]], ids=["without a mesh", "with a mesh"])
def test_it_is_saved_and_goes_on_to_the_same_weights(tmp_path: Path, options: list[str]) -> None:
    whole = train(tmp_path / "whole", 5, *options)
    assert train(tmp_path / "parted", 2, *options)["step"] == 2
    resumed = train(tmp_path / "parted", 5, *options)
    assert resumed["resumed_from"] == 2
    assert resumed["weights"] == whole["weights"]
