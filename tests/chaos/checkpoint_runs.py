# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the tests of the checkpoint helper share: attempts as the supervisor lays them out, and how to compare them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

CRASHER = Path(__file__).with_name("checkpoint_crasher.py")
HELPER = Path(__file__).parents[2] / "roles" / "deploy" / "files"


class Attempt:
    """One try of a cell: ``a<n>/out/checkpoints`` and ``a<n>/metrics.jsonl``, resuming from the earlier ones."""

    def __init__(self, cell: Path, number: int) -> None:
        self.folder = cell / f"a{number}"
        self.out = self.folder / "out"
        self.checkpoints = self.out / "checkpoints"
        self.out.mkdir(parents=True, exist_ok=True)
        self.resume_dirs = [cell / f"a{earlier}" / "out" / "checkpoints" for earlier in range(number - 1, 0, -1)]

    def environ(self, mu_s: float) -> dict[str, str]:
        return {
            "TENANT_OUTPUT_DIR": str(self.out),
            "TENANT_CHECKPOINT_DIR": str(self.checkpoints),
            "TENANT_RESUME_DIRS": os.pathsep.join(map(str, self.resume_dirs)),
            "TENANT_METRICS": str(self.folder / "metrics.jsonl"),
            "TENANT_MU_S": str(mu_s),
        }

    def metrics(self) -> list[dict[str, Any]]:
        """The whole lines; what a kill left half-written is not one."""
        lines = []
        with contextlib.suppress(FileNotFoundError):
            for line in (self.folder / "metrics.jsonl").read_text().splitlines():
                with contextlib.suppress(ValueError):
                    lines.append(json.loads(line))
        return lines

    def losses(self) -> list[tuple[int, float]]:
        return [(line["step"], line["loss"]) for line in self.metrics() if "loss" in line]

    def resumed_from(self) -> int:
        return next((line["resumed_from"] for line in self.metrics() if "resumed_from" in line), 0)

    def newest(self) -> Path:
        return self.on_disk()[-1]

    def on_disk(self) -> list[Path]:
        """The checkpoints, oldest first. A kill may fall between a save and the event that tells of it."""
        return sorted(self.checkpoints.glob("step-*.pt"))

    def events(self) -> list[str]:
        path = self.folder / "events"
        return path.read_text().splitlines() if path.exists() else []

    def saved_steps(self) -> list[int]:
        """The steps whose save was on the disk."""
        return [int(line.split()[2]) for line in self.events() if line.startswith("# saved ")]


class Crasher:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(
        self, attempt: Attempt, program: str, *arguments: str, kill: Any = None, mu_s: float = 1e9
    ) -> dict[str, int]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        job = {
            "program": program,
            "arguments": arguments,
            "environ": attempt.environ(mu_s),
            "events": str(attempt.folder / "events"),
            "kill": kill,
        }
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer: dict[str, int] = json.loads(self._process.stdout.readline())
        return answer


@contextlib.contextmanager
def crasher() -> Iterator[Crasher]:
    environ = dict(os.environ, PYTHONPATH=str(HELPER), OMP_WAIT_POLICY="passive")
    with subprocess.Popen(
        [sys.executable, str(CRASHER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
    ) as process:
        yield Crasher(process)


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(path, weights_only=True, mmap=True)
    return loaded


def same(left: Any, right: Any) -> bool:
    """Equal in every bit, through dicts, lists and tensors."""
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def assert_same_training(calm: Attempt, attempts: list[Attempt]) -> None:
    """The last attempt ended as the calm one did, and every step that any of them took had the same loss."""
    one, other = load(calm.newest()), load(attempts[-1].newest())
    assert one["step"] == other["step"]
    assert same(one["objects"], other["objects"]), "weights, optimizer, schedule or position differ"
    assert same(one["ranks"], other["ranks"]), "random numbers differ"
    expected = dict(calm.losses())
    taken = [pair for attempt in attempts for pair in attempt.losses()]
    assert {step for step, _loss in taken} == set(expected)
    assert [pair for pair in taken if expected[pair[0]] != pair[1]] == []
