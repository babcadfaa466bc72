# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A lock is held, free, or nobody can say: a disk without locks must not pass for a living process."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import attempt, locks, status
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import SYSTEM, Refused
from ansible_collections.tenant.gpu.plugins.module_utils.seal_reading import read_box


def refuse_locks(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def flock(_descriptor: int, _how: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.fixture
def path(tmp_path: Path) -> str:
    made = tmp_path / "some.lock"
    made.touch()
    return str(made)


def test_held_and_free_are_told_apart(path: str) -> None:
    assert not locks.is_held(path)
    descriptor = locks.try_lock(path)
    assert descriptor is not None
    assert locks.is_held(path)
    assert locks.try_lock(path) is None
    os.close(descriptor)
    assert not locks.is_held(path)
    assert not locks.is_held(f"{path}/none")
    assert not locks.is_held(f"{path}-none")


@pytest.mark.parametrize("code", [errno.EWOULDBLOCK, errno.EAGAIN])
def test_only_these_answers_mean_held(path: str, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    refuse_locks(monkeypatch, code)
    assert locks.is_held(path)
    assert locks.try_lock(path) is None


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EIO, errno.EACCES, errno.ENOSYS])
def test_law_5_a_disk_that_cannot_say_is_told_as_such(path: str, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    refuse_locks(monkeypatch, code)
    for ask in (locks.is_held, locks.try_lock):
        with pytest.raises(Refused) as refused:
            ask(path)
        assert refused.value.code == SYSTEM
        assert os.strerror(code) in refused.value.what
        assert path in refused.value.what
        assert "local disk" in refused.value.fix


def test_law_5_a_lock_that_cannot_be_opened_is_not_free(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_words: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(Refused, match="Input/output error"):
        locks.is_held(path)


def test_a_box_whose_disk_has_no_locks_still_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(str(tmp_path))
    os.makedirs(layout.run_dir("digits"))
    paths = layout.attempt("digits", "c1", 1)
    os.makedirs(paths.folder)
    for lock in (layout.daemon_lock, paths.lock):
        Path(lock).touch()
    refuse_locks(monkeypatch, errno.ENOLCK)
    told = status.status(layout)
    assert told["daemon"]["alive"] is False
    assert any("cannot be locked" in each and "local disk" in each for each in told["problems"]), told["problems"]
    with pytest.raises(Refused, match="nobody can say"):
        attempt.is_alive(paths)
    # The gate before a destruction takes doubt for life.
    seen = read_box(str(tmp_path))
    assert seen["live_cells"] == ["digits/c1/a1"]
    assert any("cannot be locked" in each for each in seen["problems"])
