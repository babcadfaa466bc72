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
        assert f"{whom} cannot be asked why the trainer ended: FileNotFoundError" in said


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
