# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a disk gate says besides "full": the largest entries of the data folder, hidden ones too, and in time."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import disk_hogs, disk_use, gates

RUN: dict[str, Any] = {"durable": {"kind": "none"}, "limits": {"min_free_bytes": 2**62, "min_free_inodes": 0}}
NO_INODES: dict[str, Any] = {"durable": {"kind": "none"}, "limits": {"min_free_bytes": 0, "min_free_inodes": 2**62}}


def write(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with a tenant root, a hidden cache and a folder of many small files."""
    data = tmp_path / "data"
    write(data / ".cache" / "huggingface" / "blobs" / "model", 3_000_000)
    write(data / "gpu-tenant" / "runs" / "r" / "last.pt", 2_000_000)
    write(data / "gpu-tenant" / "index.json", 10)
    write(data / "loose.bin", 1_000_000)
    for number in range(50):
        write(data / "samples" / str(number), 1)
    return data


def test_the_largest_are_named_and_hidden_ones_too(data: Path) -> None:
    (said,) = gates.refusals(str(data / "gpu-tenant"), RUN)
    assert said.endswith(f"(most of {data}: .cache 3.0 MB, gpu-tenant/runs 2.0 MB, loose.bin 1.0 MB)")


def test_where_inodes_lack_files_are_counted(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that counts no inodes lacks none: the numbers are given here."""
    monkeypatch.setattr(gates, "disk_of", lambda _path: gates.Disk(2**62, 7))
    (said,) = gates.refusals(str(data / "gpu-tenant"), NO_INODES)
    assert "7 inodes are free" in said
    assert f"(most of {data}: samples 51 inodes, .cache 4 inodes" in said


def test_a_disk_with_room_is_not_counted(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_hogs, "hogs", lambda *_words: pytest.fail("counted"))
    roomy = {"durable": {"kind": "none"}, "limits": {"min_free_bytes": 0, "min_free_inodes": 0}}
    assert gates.refusals(str(data / "gpu-tenant"), roomy) == []


def test_a_linked_cache_counts_with_what_it_leads_to(data: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "model", 5_000_000)
    os.symlink(tmp_path / "elsewhere", data / ".models")
    os.symlink(data / "samples", data / "inside")
    os.symlink(tmp_path, data / "around")
    os.symlink("nowhere", data / "dangling")
    found = {each.name: each for each in disk_hogs.hogs(str(data), 60).entries}
    assert found[f".models -> {tmp_path / 'elsewhere'}"].bytes >= 5_000_000
    assert {name for name in found if "->" in name} == {f".models -> {tmp_path / 'elsewhere'}"}, "counted twice"
    assert found["samples"].inodes == 51


def test_a_file_of_several_names_takes_its_bytes_once(data: Path) -> None:
    os.link(data / "loose.bin", data / "samples" / "again")
    found = disk_hogs.hogs(str(data), 60).entries
    assert 6_000_000 <= sum(each.bytes for each in found) < 6_500_000


def test_other_file_systems_are_left_out(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device of a mount below the data folder, and of one at its root, is another."""
    foreign = {str(data / "mounted"), str(data / "samples" / "nfs")}
    write(data / "mounted" / "far", 9_000_000)
    write(data / "samples" / "nfs" / "far", 9_000_000)
    real_listed = disk_use._listed

    def elsewhere(found: os.stat_result) -> os.stat_result:
        return os.stat_result((*found[:2], found.st_dev + 1, *found[3:]))

    class Mount:
        def __init__(self, entry: Any) -> None:
            self.name, self.path, self._entry = entry.name, entry.path, entry

        def is_dir(self, follow_symlinks: bool = True) -> bool:
            return bool(self._entry.is_dir(follow_symlinks=follow_symlinks))

        def stat(self, follow_symlinks: bool = True) -> os.stat_result:
            return elsewhere(self._entry.stat(follow_symlinks=follow_symlinks))

    def listed(folder: str, must: bool) -> list[Any]:
        return [Mount(entry) if entry.path in foreign else entry for entry in real_listed(folder, must)]

    monkeypatch.setattr(disk_use, "_listed", listed)
    found = {each.name: each.bytes for each in disk_hogs.hogs(str(data), 60).entries}
    assert "mounted" not in found
    assert found["samples"] < 1_000_000
    assert disk_use.measured_use(str(data), 10**9, 60).used_bytes < 9_000_000


def test_it_ends_in_time_and_after_so_many_entries(data: Path) -> None:
    ticks = iter(range(1000))
    late = disk_hogs.hogs(str(data), 10, clock=lambda: float(next(ticks)))
    assert not late.whole
    assert sum(each.inodes for each in late.entries) <= 10
    assert sum(each.inodes for each in disk_hogs.hogs(str(data), 60, most=5).entries) == 5
    assert disk_hogs.hogs(str(data), 60).whole


def test_what_was_not_counted_to_the_end_says_so(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = disk_hogs.Hogs(False, (disk_hogs.Entry(".cache", 10**9, 3),))
    monkeypatch.setattr(disk_hogs, "hogs", lambda *_words: some)
    (said,) = gates.refusals(str(data / "gpu-tenant"), RUN)
    assert said.endswith(f"(most of {data}, as far as was counted: .cache 1.0 GB)")


def test_a_disk_that_does_not_answer_is_refused_without_names(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = threading.Event()
    monkeypatch.setattr(gates, "NAMED_WITHIN_S", 0.01)
    monkeypatch.setattr(disk_hogs, "hogs", lambda *_words: hangs.wait())
    try:
        (said,) = gates.refusals(str(data / "gpu-tenant"), RUN)
    finally:
        hangs.set()
    assert said.endswith(f"the run asks for {2**62}")


def test_a_disk_that_cannot_be_read_is_refused_without_names(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_words: object) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(disk_hogs, "hogs", unreadable)
    (said,) = gates.refusals(str(data / "gpu-tenant"), RUN)
    assert said.endswith(f"the run asks for {2**62}")


def test_names_are_a_stranger_s_and_fit_for_a_record(data: Path) -> None:
    odd = os.path.join(os.fsencode(data), b"caf\xe9\x1b[2J\n.tar")
    with open(odd, "wb") as stream:
        stream.write(b"x" * 50_000_000)
    shown = disk_hogs.hogs(str(data), 60)
    for text in (shown.by_bytes(), shown.by_inodes(), str(disk_use.measured_use(str(data), 10**9, 60).largest)):
        assert text.isprintable()
        assert text.isascii()
    assert "caf" in shown.by_bytes()
