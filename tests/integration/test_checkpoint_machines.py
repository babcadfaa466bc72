# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A replicated model on machines that share no disk: which of them holds the newest checkpoint does not matter.

Each rank is a process of its own with a folder of its own, over gloo.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
HELPER = ROOT / "roles" / "deploy" / "files"
TRAINER = Path(__file__).with_name("machine_trainer.py")
DEADLINE_S = 300


def train(folder: Path, machines: list[str], steps: int, shared: bool = False) -> list[dict[str, Any]]:
    """What each rank said, rank 0 on the first of ``machines``."""
    meeting = folder / f"meeting-{steps}-{'-'.join(machines)}"
    started = []
    for rank, machine in enumerate(machines):
        environ = {
            **os.environ,
            "PYTHONPATH": str(HELPER),
            "PYTHONDONTWRITEBYTECODE": "1",
            "RANK": str(rank),
            "WORLD_SIZE": str(len(machines)),
            "LOCAL_RANK": "0",
            "LOCAL_WORLD_SIZE": "1",
            "TENANT_CHECKPOINT_DIR": str(folder / ("all" if shared else machine)),
        }
        command = [sys.executable, str(TRAINER), str(steps), str(meeting)]
        started.append(
            subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    told = []
    for each in started:
        out, errors = each.communicate(timeout=DEADLINE_S)
        assert each.returncode == 0, errors
        told.append(json.loads(out))
    return told


def steps_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("step-*"))


def test_rank_0_on_a_machine_that_was_just_rented_goes_on_from_the_others_checkpoint(tmp_path: Path) -> None:
    first = train(tmp_path, ["a", "b"], 5)
    assert steps_in(tmp_path / "a")
    assert not steps_in(tmp_path / "b"), "rank 0 writes, on its machine"
    # The machine of rank 1 was lost; the one that took its place has an address that sorts first.
    again = train(tmp_path, ["new", "a"], 8)
    assert [told["resumed"] for told in again] == [5, 5]
    for told in again:
        assert told["weights"] == first[0]["ends"]
    assert again[0]["ends"] == again[1]["ends"] != first[0]["ends"]
    assert steps_in(tmp_path / "new")
    # The best of all came along, by its very bytes, with the first save.
    assert [told["best"] for told in again] == [3, 3]
    best = next(path for path in (tmp_path / "a").glob("step-*3.pt"))
    assert (tmp_path / "new" / best.name).read_bytes() == best.read_bytes()
    assert not list((tmp_path / "new").glob(".brought*"))


def test_the_newest_wins_wherever_it_lies(tmp_path: Path) -> None:
    train(tmp_path, ["a", "b"], 3)
    newer = train(tmp_path, ["c", "a"], 6)
    # Both hold one now: a that of step 3, c that of step 6.
    told = train(tmp_path, ["a", "c", "b"], 7)
    assert [one["resumed"] for one in told] == [6, 6, 6]
    assert {json.dumps(one["weights"]) for one in told} == {json.dumps(newer[0]["ends"])}


def test_a_damaged_one_of_another_machine_is_passed_over_there(tmp_path: Path) -> None:
    train(tmp_path, ["a", "b"], 3)
    newest = max((tmp_path / "a").glob("step-*"))
    held = newest.read_bytes()
    (tmp_path / "b").mkdir(exist_ok=True)
    (tmp_path / "b" / newest.name.replace("3", "9")).write_bytes(held[: len(held) // 2])
    told = train(tmp_path, ["a", "b"], 4)
    assert [one["resumed"] for one in told] == [3, 3]
    assert len(list((tmp_path / "b" / "quarantine").iterdir())) == 1


def test_machines_that_share_a_folder_read_the_same_file(tmp_path: Path) -> None:
    first = train(tmp_path, ["a", "b"], 3, shared=True)
    told = train(tmp_path, ["a", "b"], 4, shared=True)
    assert [one["resumed"] for one in told] == [3, 3]
    assert {json.dumps(one["weights"]) for one in told} == {json.dumps(first[0]["ends"])}
