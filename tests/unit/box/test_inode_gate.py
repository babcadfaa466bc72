# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The known cap on the files of a durable mount, whatever its file system tells: AutoDL's /root/autodl-fs is full at
about 200,000. It keeps a cell from starting and a copy from its first byte.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import durable_probe, probe_report
from ansible_collections.tenant.gpu.plugins.module_utils.box import (
    disk_use,
    durable,
    gates,
    mount_answer,
    records,
    run_record,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import DURABLE_FAILED, Refused

CAP = 40
NO_LIMITS = {"min_free_bytes": 0}


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that passes for a mount of plenty, with 36 files and folders on it."""
    point, told = tmp_path / "mnt", os.statvfs
    (point / "old").mkdir(parents=True)
    for number in range(34):
        (point / "old" / str(number)).touch()
    (point / "notes").touch()
    monkeypatch.setattr(gates, "durable_problem", lambda durable, root: "")
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) == str(point))
    monkeypatch.setattr(os, "statvfs", lambda path: told("/proc") if str(path).startswith(str(point)) else told(path))
    return point


def run_on(path: Path, cap: int = CAP, **limits: int) -> dict[str, Any]:
    kept = {"kind": "mount", "path": str(path), **({"inode_cap": cap} if cap else {})}
    return {"project": "p", "run_id": "r", "box": "b", "generation": 1, "limits": {**NO_LIMITS, **limits},
            "durable": kept}  # fmt: skip


def test_a_full_mount_keeps_a_cell_from_starting_and_says_what_to_do(mount: Path, tmp_path: Path) -> None:
    (mount / "one-more").touch()
    (said,) = gates.refusals(str(tmp_path), run_on(mount))
    assert f"on the durable mount {mount} 37 of the 40 files that it may hold are there" in said
    assert "(most of them: old 35, notes 1, one-more 1)" in said
    assert "4 are to be free: remove what no run needs" in said
    assert "platform_inode_cap" in said


@pytest.mark.parametrize(("cap", "limits"), [(0, {}), (CAP, {}), (CAP, {"min_free_inodes": 2}), (10_000_000, {})])
def test_room_under_the_cap_or_no_cap_starts(mount: Path, tmp_path: Path, cap: int, limits: dict[str, int]) -> None:
    assert gates.refusals(str(tmp_path), run_on(mount, cap, **limits)) == []


def test_a_tenth_of_a_small_cap_is_the_most_that_is_asked_for(mount: Path, tmp_path: Path) -> None:
    """Else no mount of a few hundred files would ever be used."""
    assert gates.refusals(str(tmp_path), run_on(mount, min_free_inodes=30)) == []
    assert gates.refusals(str(tmp_path), run_on(mount, 1000, min_free_inodes=1000)) == []


def test_the_whole_mount_counts_wherever_the_durable_folder_lies(mount: Path, tmp_path: Path) -> None:
    (mount / "team").mkdir()
    (mount / "one-more").touch()
    assert "38 of the 40 files" in gates.refusals(str(tmp_path), run_on(mount / "team"))[0]


def test_a_mount_that_cannot_be_counted_lacks_nothing(
    mount: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_words: object) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(disk_use, "counted_files", unreadable)
    assert gates.refusals(str(tmp_path), run_on(mount, 1)) == []


def test_the_look_is_given_less_time_than_the_mount(
    mount: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    monkeypatch.setattr(
        disk_use, "counted_files", lambda path, cap, within_s: asked.append(within_s) or disk_use.Files(cap, 0, True)
    )
    gates.refusals(str(tmp_path), run_on(mount))
    assert asked[0] < mount_answer.WITHIN_S


# --- counting -----------------------------------------------------------------------------------------------------


def test_files_are_counted_no_further_than_the_cap(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert disk_use.counted_files(str(mount), CAP, 60).used == 36
    seen: list[str] = []

    def endless(_root: str) -> Iterator[tuple[str, None]]:
        while True:
            seen.append("x")
            yield "x", None

    monkeypatch.setattr(disk_use, "entries", endless)
    files = disk_use.counted_files(str(mount), 7, 60)
    assert (files.used, files.free, files.whole, len(seen)) == (7, 0, False, 7)


def test_counting_ends_in_time_with_the_least(mount: Path) -> None:
    ticks = iter(range(100))
    files = disk_use.counted_files(str(mount), CAP, 10, lambda: float(next(ticks)))
    assert not files.whole
    assert 0 < files.used < 36


def test_links_are_not_followed_and_a_folder_that_goes_away_is_passed_over(mount: Path) -> None:
    os.symlink("/", mount / "out")
    walk = disk_use.entries(str(mount))
    found = [next(walk)[0]]
    for path in (mount / "old").iterdir():
        path.unlink()
    (mount / "old").rmdir()
    found += [name for name, _entry in walk]
    assert sorted(found) == ["notes", "old", "out"]


def test_a_mount_that_tells_the_cap_is_believed(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Told:
        f_files, f_favail = 200_000, 150

    monkeypatch.setattr(os, "statvfs", lambda _path: Told)
    monkeypatch.setattr(disk_use, "entries", lambda _path: pytest.fail("counted"))
    files = disk_use.counted_files(str(mount), 200_000, 10)
    assert (files.used, files.free, files.whole) == (199_850, 150, True)


# --- the copy -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [0, -1])
def test_a_copy_that_does_not_fit_is_refused_before_its_first_byte(mount: Path, tmp_path: Path, room: int) -> None:
    layout = Layout(str(tmp_path / "root"))
    paths = layout.attempt("r", "c1", 1)
    os.makedirs(paths.output)
    Path(paths.output, "model.pt").write_bytes(b"weights")
    sha256 = records.sha256_file(os.path.join(paths.output, "model.pt"))
    roster = [{"path": "c1/a1/out/model.pt", "bytes": 7, "sha256": sha256}]
    # The file, p/r/b/g1/c1/a1/out, the record of the end, and the other name of a file that arrives.
    wanted = 1 + 7 + 2
    run = run_on(mount, 36 + wanted + room)
    if room < 0:
        with pytest.raises(Refused, match=f"36 of the {45} files .* and {wanted} are to be free") as refused:
            durable.copy_artifacts(layout, run, paths, roster)
        assert refused.value.code == DURABLE_FAILED
        assert "nothing is trained twice" in refused.value.fix
        assert sorted(os.listdir(mount)) == ["notes", "old"]
        # Once a person has made room.
        (mount / "old" / "7").unlink()
    copied = durable.copy_artifacts(layout, run, paths, roster)
    durable.copy_done(copied, {"files": 1})
    assert Path(copied["path"], "out", "model.pt").read_bytes() == b"weights"
    # What lies there needs no room any more, so that a crash behind the copy heals on a mount that others have filled.
    for number in range(10):
        (mount / f"more-{number}").touch()
    assert durable.copy_artifacts(layout, run, paths, roster) == copied


def test_a_mount_that_cannot_be_counted_is_tried(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_words: object) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(disk_use, "counted_files", unreadable)
    durable._refuse_too_many(run_on(mount)["durable"], [str(mount / "p" / "model.pt")])


# --- who is told --------------------------------------------------------------------------------------------------


def test_the_supervisor_is_told_of_the_cap() -> None:
    run = {
        "project": "p", "box": "b", "generation": 1, "provider_id": "7", "run_id": "r", "spec_sha256": "a" * 64,
        "code_sha256": "b" * 64, "python": "/usr/bin/python3", "command": ["python"], "workdir": "/",
        "cells": [{"id": "c"}], "durable": {"kind": "mount", "path": "/mnt", "inode_cap": 200_000},
    }  # fmt: skip
    assert run_record.check_run(run)["durable"] == {"kind": "mount", "path": "/mnt", "inode_cap": 200_000}
    for wrong in ("200K", -1, 1.5):
        with pytest.raises(Refused, match="inode_cap"):
            run_record.check_run({**run, "durable": {"kind": "mount", "path": "/mnt", "inode_cap": wrong}})


def test_the_probe_counts_them_and_refuses_a_full_mount(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable_probe, "_mount_problem", lambda *_words: "")
    found = durable_probe.check_durable("mount", str(mount), "/data", False, inode_cap=CAP)
    assert (found["files"]["cap"], found["files"]["used"], found["use"]) == (CAP, 36, None)
    assert probe_report.refusals({"durable": found}, {}) == []
    (mount / "one-more").touch()
    found = durable_probe.check_durable("mount", str(mount), "/data", False, inode_cap=CAP)
    (said,) = probe_report.refusals({"durable": found}, {})
    assert f"the durable mount {mount} is full: 37 of the 40 files that it may hold are there" in said
    assert "old 35 files" in said
    assert "raise platform_inode_cap" in said


@pytest.mark.parametrize("files", [None, "x", {"cap": "40", "used": 40}, {"cap": 40}, {"cap": 40, "used": 10}])
def test_law_8_what_a_box_says_of_its_files_cannot_break_the_verdict(files: object) -> None:
    durable_said = {"kind": "mount", "path": "/mnt", "real": True, "why": "", "use": None, "files": files}
    assert probe_report.refusals({"durable": durable_said}, {}) == []
