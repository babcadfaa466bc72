# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Saving behind the training on a CUDA device. NOT RUN where there is none; ``TENANT_TEST_CUDA_GIB=20`` for a large
state."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tenant_checkpoint import Checkpointer, manifest_of, read_checkpoint

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT RUN: no CUDA device")

GIB = float(os.environ.get("TENANT_TEST_CUDA_GIB", "0.25"))
PIECES = 8
ROUNDS = 3


class Weights:
    """As much state as asked for, on the device, in several tensors; two of them share their storage."""

    def __init__(self) -> None:
        each = int(GIB * 2**30 / 4 / PIECES)
        self.tensors = {f"w{n}": torch.empty(each, device="cuda") for n in range(PIECES)}
        self.tensors["tied"] = self.tensors["w0"][: each // 2]
        self.fill(0.0)

    def fill(self, value: float) -> None:
        """Different in each tensor, by kernels that are still under way when this returns."""
        for number in range(PIECES):
            self.tensors[f"w{number}"].fill_(value + number)

    def state_dict(self) -> dict[str, Any]:
        return dict(self.tensors)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, tensor in state.items():
            self.tensors[name].copy_(tensor)

    def is_filled_with(self, value: float) -> bool:
        return all(bool((self.tensors[f"w{n}"] == value + n).all()) for n in range(PIECES))


def saver(folder: Path, weights: Weights) -> Checkpointer:
    return Checkpointer(
        {"weights": weights},
        directory=str(folder),
        keep_last=1,
        longest_interval_s=1e9,
        environ={"TENANT_MU_S": "1e12"},
    )


def test_what_is_saved_is_the_state_at_the_call_on_whatever_stream_it_was_made(tmp_path: Path) -> None:
    weights = Weights()
    checkpoints = saver(tmp_path, weights)
    own = torch.cuda.Stream()
    for number in range(1, ROUNDS + 1):
        value = 100.0 * number
        with torch.cuda.stream(own):
            weights.fill(value)
            checkpoints.step += 1
            path = checkpoints.save()
            # At once, and on the same stream: the copy to the host must have been taken before.
            weights.fill(-1.0)
        checkpoints.wait()
        saved = read_checkpoint(path)["objects"]["weights"]
        for piece in range(PIECES):
            tensor = saved[f"w{piece}"]
            assert bool((tensor == value + piece).all()), f"save {number}, tensor {piece}"
        assert bool((saved["tied"] == value).all())
        del saved
        assert manifest_of(path)["step"] == number


def test_the_state_and_the_random_numbers_of_the_device_come_back(tmp_path: Path) -> None:
    weights = Weights()
    checkpoints = saver(tmp_path, weights)
    checkpoints.load_latest()
    weights.fill(7.0)
    checkpoints.step += 1
    checkpoints.save(wait=True)
    expected = torch.rand(1000, device="cuda")
    weights.fill(-1.0)
    torch.rand(17, device="cuda")
    del checkpoints
    resumed = saver(tmp_path, weights)
    resumed.load_latest()
    assert resumed.step == 1
    assert weights.is_filled_with(7.0)
    assert torch.equal(torch.rand(1000, device="cuda"), expected)
