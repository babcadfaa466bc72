# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The bench of saves refuses what its machine cannot measure, in so many words and before it begins."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    module = importlib.import_module("checkpoint_save")
    # As a machine with one device of 80 GiB, of which 50 are free.
    monkeypatch.setattr(module.torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(module.torch.cuda, "mem_get_info", lambda _device: (50 * 2**30, 80 * 2**30))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _path: type("Usage", (), {"free": 2**40}))
    sizes = {"SC_PAGE_SIZE": 4096, "SC_AVPHYS_PAGES": 2**40 // 4096}
    monkeypatch.setattr(module.os, "sysconf", sizes.__getitem__)
    return module


@pytest.mark.parametrize(
    ("device", "gib", "says"),
    [
        ("cpu", 1.0, ""),
        ("cuda", 20.0, ""),
        ("cuda:0", 20.0, ""),
        ("cuda:1", 20.0, "sees 1 CUDA devices here"),
        ("mps", 1.0, "TENANT_BENCH_DEVICE=mps is neither cpu nor cuda"),
        ("cuda:x", 1.0, "neither cpu nor cuda"),
        ("cpu", 0.0, "TENANT_BENCH_GIB=0 is no size"),
        ("cuda", 40.0, "40 GiB of state need 60.0 GiB of cuda, where 50.0 are free"),
        ("cpu", 330.0, "of state need 1056.0 GiB of the disk of"),
        ("cpu", float("nan"), "is no size"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    bench: Any, monkeypatch: pytest.MonkeyPatch, device: str, gib: float, says: str
) -> None:
    monkeypatch.setattr(bench, "DEVICE", device)
    monkeypatch.setattr(bench, "GIB", gib)
    problem = bench.refusal()
    assert says in problem
    assert bool(problem) == bool(says), problem
    if says:
        with pytest.raises(SystemExit, match=r"^NOT RUN: .*; nothing was measured$"):
            bench.rows()
