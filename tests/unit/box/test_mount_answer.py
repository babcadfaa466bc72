# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A durable mount whose server is dead: whoever asks gets an answer all the same."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import durable_checkpoints, gates, mount_answer
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import DISK, Refused

PATIENCE_S = 600.0


@pytest.fixture
def dead_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A folder below which every look waits until the test is over."""
    path, over = str(tmp_path / "mnt"), threading.Event()
    real_stat = os.stat

    def stat(where: Any, *words: Any, **more: Any) -> os.stat_result:
        if isinstance(where, str) and where.startswith(path):
            assert over.wait(PATIENCE_S)
        return real_stat(where, *words, **more)

    monkeypatch.setattr(mount_answer, "WITHIN_S", 0.1)
    monkeypatch.setattr(durable_checkpoints, "PREPARED_WITHIN_S", 0.1)
    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(os.path, "isdir", lambda where: bool(stat(where)))
    yield path
    over.set()


def run_on(path: str) -> dict[str, Any]:
    limits = {"min_free_bytes": 0, "min_free_inodes": 0}
    return {"project": "p", "run_id": "r", "box": "b", "generation": 1, "limits": limits,
            "durable": {"kind": "mount", "path": path}}  # fmt: skip


def test_law_6_the_gate_before_a_cell_does_not_wait_for_a_dead_server(dead_mount: str, tmp_path: Path) -> None:
    assert gates.refusals(str(tmp_path), run_on(dead_mount)) == [
        f"the durable mount {dead_mount} gives no answer within 0.1 s"
    ]


def test_law_6_a_shim_refuses_a_mount_that_died_after_the_gate(dead_mount: str, tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    with pytest.raises(Refused, match="no answer within") as refused:
        durable_checkpoints.prepare(layout, run_on(dead_mount), layout.attempt("r", "c1", 1), {"cell": "c1"})
    assert refused.value.code == DISK
    assert refused.value.fix


def test_what_the_mount_answers_is_given_and_raised_as_it_is() -> None:
    def fail() -> None:
        raise PermissionError("not for you")

    assert mount_answer.asked("/mnt", lambda: 7) == 7
    with pytest.raises(PermissionError, match="not for you"):
        mount_answer.asked("/mnt", fail)


def test_a_mount_without_room_keeps_a_cell_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "_mount_problem", lambda _path, _root: "")
    room = {str(tmp_path): gates.Disk(2**40, 10**6), "/mnt/team": gates.Disk(100, 7)}
    monkeypatch.setattr(gates, "disk_of", lambda path: room[path])
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result((1,) * 10))
    run = dict(run_on("/mnt/team"), limits={})
    assert gates.refusals(str(tmp_path), run) == [
        "on the durable mount /mnt/team 100 bytes are free, the run asks for 536870912",
        "on the durable mount /mnt/team 7 inodes are free, the run asks for 1000",
    ]
    assert gates.refusals(str(tmp_path), run_on("/mnt/team")) == []


def test_a_mount_that_tells_no_size_is_not_called_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As some FUSE file systems: all numbers are 0."""
    monkeypatch.setattr(gates, "_mount_problem", lambda _path, _root: "")
    assert os.statvfs("/proc").f_blocks == 0
    assert gates.refusals(str(tmp_path), dict(run_on("/proc"), limits={"min_free_bytes": 1})) == []
