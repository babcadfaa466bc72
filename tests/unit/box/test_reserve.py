# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A full disk: what decides is written in the blocks kept back, and a trainer is told to stop whatever is written."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import attempt, process, records, reserve, stopping
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout

FULL = OSError(errno.ENOSPC, "No space left on device")


class Disk:
    """Takes a write once ``files`` of the reserve are given up."""

    def __init__(self, paths: list[str], files: int) -> None:
        self.paths, self.files = paths, files

    def write(self) -> str:
        if sum(not os.path.exists(path) for path in self.paths) < self.files:
            raise FULL
        return "written"


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    kept = [str(tmp_path / f"reserve-{number}") for number in (1, 2)]
    reserve.keep(kept)
    assert [os.path.getsize(path) for path in kept] == [reserve.BYTES] * 2
    return kept


@pytest.mark.parametrize("files", [0, 1, 2])
def test_no_more_of_the_reserve_is_given_up_than_a_write_takes(paths: list[str], files: int) -> None:
    assert reserve.spend(paths, Disk(paths, files).write) == "written"
    assert [os.path.exists(path) for path in paths] == [False] * files + [True] * (2 - files)
    reserve.keep(paths)
    assert all(map(os.path.exists, paths))


def test_a_disk_that_stays_full_and_another_error_are_told(paths: list[str]) -> None:
    def is_read_only() -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with pytest.raises(OSError, match="Read-only"):
        reserve.spend(paths, is_read_only)
    assert all(map(os.path.exists, paths))
    with pytest.raises(OSError, match="No space"):
        reserve.spend(paths, Disk(paths, 3).write)


def test_a_reserve_that_has_no_room_leaves_no_part_that_passes_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(_number: int) -> bytes:
        raise FULL

    monkeypatch.setattr(os, "urandom", no_room)
    with pytest.raises(OSError, match="No space"):
        reserve.keep([str(tmp_path / "reserve-1")])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_trainer_is_told_to_stop_though_the_disk_takes_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    told: list[int] = []

    def refuse(*_words: Any) -> None:
        raise OSError(number, os.strerror(number))

    def send(_identity: object, sent: int) -> bool:
        told.append(sent)
        return True

    monkeypatch.setattr(records, "write_record", refuse)
    monkeypatch.setattr(attempt, "shim_of", lambda _paths: None)
    monkeypatch.setattr(process, "send", send)
    stopping.ask(Layout(str(tmp_path)).attempt("digits", "c1", 1), 20.0, "this machine ends")
    assert told == [signal.SIGTERM]
