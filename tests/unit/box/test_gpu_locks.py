# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One trainer for each GPU of a machine, whoever started it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import gpu, gpu_locks
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import HELD, SYSTEM, Refused

READING = gpu.Reading(tuple(gpu.Gpu(n, f"GPU-{n}a{n}b", "RTX 4090", 24564, 1) for n in range(2)))


@pytest.mark.parametrize(
    ("env", "names"),
    [
        ({}, ["GPU-0a0b", "GPU-1a1b"]),
        ({"CUDA_VISIBLE_DEVICES": "1"}, ["GPU-1a1b"]),
        ({"CUDA_VISIBLE_DEVICES": "1, 0"}, ["GPU-0a0b", "GPU-1a1b"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-1a"}, ["GPU-1a1b"]),
        ({"CUDA_VISIBLE_DEVICES": "MIG-77"}, ["MIG-77"]),
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
    ],
)
def test_an_index_and_a_uuid_mean_the_same_card(
    env: dict[str, str], names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu_locks.cards({"gpu": {"required": True}, "env": env}, READING) == names
    assert gpu_locks.cards({"gpu": {"required": False}, "env": env}, READING) == []


def test_cards_that_a_batch_system_gave_are_those_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpu_locks.cards({"gpu": {"required": True}, "env": {}}, READING) == ["GPU-1a1b"]
    assert gpu_locks.cards({"gpu": {"required": True}, "env": {"CUDA_VISIBLE_DEVICES": "0"}}, READING) == ["GPU-0a0b"]


def test_a_card_has_one_holder_and_all_are_taken_or_none(tmp_path: Path) -> None:
    folder = str(tmp_path / "gpus")
    mine = gpu_locks.acquire(["GPU-1"], 0, folder)
    with pytest.raises(Refused) as caught:
        gpu_locks.acquire(["GPU-0", "GPU-1"], 0, folder)
    assert caught.value.code == HELD
    assert "GPU-1" in caught.value.what
    assert gpu_locks.held(["GPU-0", "GPU-1"], folder) == ["GPU-1"]
    gpu_locks.release(mine)
    assert gpu_locks.held(["GPU-0", "GPU-1"], folder) == []
    both = gpu_locks.acquire(["GPU-1", "GPU-0"], 0, folder)
    assert gpu_locks.held(["GPU-0", "GPU-1"], folder) == ["GPU-0", "GPU-1"]
    gpu_locks.release(both)


def test_law_8_a_name_or_a_planted_link_leads_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "gpus"
    gpu_locks.release(gpu_locks.acquire(["../../x"], 0, str(folder)))
    assert os.listdir(folder) == [".._.._x.lock"]
    (folder / "GPU-0.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(Refused) as caught:
        gpu_locks.acquire(["GPU-0"], 0, str(folder))
    assert caught.value.code == SYSTEM
    assert not (tmp_path / "victim").exists()
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(Refused, match="not a folder"):
        gpu_locks.acquire(["GPU-0"], 0, str(tmp_path / "link"))
