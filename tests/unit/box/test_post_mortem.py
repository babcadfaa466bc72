# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What is asked when a trainer has failed: nobody who cannot answer keeps the end from being recorded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import cgroup, failure_class, gates, gpu
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import AttemptPaths, Layout
from ansible_collections.tenant.gpu.plugins.module_utils.box.post_mortem import PostMortem


def install(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.fixture
def paths(tmp_path: Path) -> AttemptPaths:
    found = Layout(str(tmp_path)).attempt("digits", "c1", 1)
    os.makedirs(found.folder)
    Path(found.log).write_text("Traceback (most recent call last):\nKeyError: 'lr'\n")
    return found


def asked(paths: AttemptPaths, child: int = 1, **limits: int) -> failure_class.Evidence:
    return PostMortem(paths, paths.folder, limits).evidence(child, together=False)


def test_whoever_cannot_be_asked_says_nothing(
    paths: AttemptPaths, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    post_mortem = PostMortem(paths, paths.folder, {})

    def fails(*_words: Any) -> NoReturn:
        raise FileNotFoundError(2, "No usable temporary directory found")

    for module, name in ((gates, "disk_of"), (cgroup, "oom_kills"), (gpu, "xids")):
        monkeypatch.setattr(module, name, fails)
    found = post_mortem.evidence(1, together=False)
    assert (found.child, found.shortages, found.oom_kills, found.xids) == (1, (), None, ())
    # What could be asked is not lost.
    assert "KeyError" in found.log_tail
    said = capfd.readouterr().err
    for whom in ("the disk", "the kernel", "the driver"):
        assert f"{whom} cannot be asked about the trainer: FileNotFoundError" in said


PLACES = """case "$1" in
  *uuid,pci.bus_id*) echo "GPU-1, 00000000:3B:00.0"; echo "GPU-2, 00000000:AF:00.0";;
esac"""


@pytest.mark.parametrize(("cards", "name"), [(["GPU-1"], "code"), (["GPU-2"], "gpu_fault"), ([], "gpu_fault")])
def test_only_the_runs_own_cards_are_held_against_it(
    paths: AttemptPaths, monkeypatch: pytest.MonkeyPatch, cards: list[str], name: str
) -> None:
    tools = Path(paths.folder, "tools")
    tools.mkdir()
    install(tools / "nvidia-smi", PLACES)
    install(tools / "dmesg", ":")
    monkeypatch.setattr(gpu, "search_path", lambda: f"{tools}:{os.defpath}")
    post_mortem = PostMortem(paths, paths.folder, {"min_free_bytes": 0, "min_free_inodes": 0})
    post_mortem.tell_cards_apart(cards)
    # The card falls off the bus, and nvidia-smi does not know it any more.
    install(tools / "nvidia-smi", "echo 'Unable to determine the device handle'; exit 15")
    install(tools / "dmesg", f"echo '[{gpu.uptime_s():.6f}] NVRM: Xid (PCI:0000:af:00): 79, pid=7, GPU is lost'")
    found = failure_class.classify(post_mortem.evidence(1, together=False))
    assert found is not None
    assert found.name == name


def test_an_error_on_a_disk_with_less_than_the_run_asks_for_is_an_error(
    paths: AttemptPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on(free_bytes: int, free_inodes: int) -> str:
        monkeypatch.setattr(gates, "disk_of", lambda _path: gates.Disk(free_bytes, free_inodes))
        monkeypatch.setattr(gpu, "xids", lambda *_words: None)
        found = failure_class.classify(asked(paths, min_free_bytes=10 << 30, min_free_inodes=0))
        assert found is not None
        return f"{found.name}: {found.evidence}"

    assert on(9 << 30, 5000) == "code: it left with exit code 1"
    assert on(0, 5000) == f"disk_full: 0 bytes are free, the run asks for {10 << 30}"
    assert on(20 << 30, 0) == f"disk_full: {20 << 30} bytes and 0 inodes are free"


def test_the_reserve_is_given_back_after_the_disk_was_looked_at_and_before_anybody_else(
    paths: AttemptPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve, there = Path(paths.reserve[0]), {}
    reserve.touch()
    disk = gates.disk_of(paths.folder)

    def looks_at_the_disk(_path: str) -> gates.Disk:
        there["disk"] = reserve.exists()
        return disk

    def looks_at_the_kernel() -> int:
        there["kernel"] = reserve.exists()
        return 0

    monkeypatch.setattr(gates, "disk_of", looks_at_the_disk)
    post_mortem = PostMortem(paths, paths.folder, {})
    monkeypatch.setattr(cgroup, "oom_kills", looks_at_the_kernel)
    post_mortem.evidence(1, together=False)
    assert there == {"disk": True, "kernel": False}
