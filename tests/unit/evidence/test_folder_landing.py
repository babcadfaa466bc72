# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Whole folders that were read while rsync lived count only if nothing was put into them since."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import (
    delivery,
    folder_landing,
    landing,
    progress,
    roster,
    settling,
)
from evidence_world import entry

OLD_NS = 1_000_000_000_123_456_789
FILES = roster.parse_files([entry(f"a/b/f{number}", b"%d" % number) for number in range(5)])


class Folder:
    """``a/b`` as rsync has brought it: all that was promised, at a time well past."""

    def __init__(self, root: Path, files: tuple[roster.RosterFile, ...] = FILES) -> None:
        self.root, self.files = root, files
        self.progress = progress.Progress(None, len(files), 0)
        self.landing = landing.Landing(str(root), self.progress)
        self.staged = Path(delivery.open_staging(str(root), files)) / "a/b"
        self.home = root / "a/b"
        for number in range(5):
            (self.staged / f"f{number}").write_bytes(b"%d" % number)
        self.age()

    def age(self, mtime_ns: int = OLD_NS) -> None:
        os.utime(self.staged, ns=(mtime_ns, mtime_ns))

    def look(self) -> bool:
        return self.landing.folders.look("a/b", self.files)

    def taken(self) -> list[str]:
        """What is in its place."""
        self.landing.folders.take({"a/b": self.files})
        left = {file.path for file in self.landing.left(self.files)}
        for file in self.files:
            assert (self.root / file.path).exists() is (file.path not in left)
        return sorted(file.path for file in self.files if file.path not in left)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


PATHS = [file.path for file in FILES]


def test_a_folder_that_was_read_early_is_moved_without_being_read_again(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    inode = folder.staged.stat().st_ino
    assert folder.look()
    monkeypatch.setattr(settling, "hash_open", lambda *_unused: pytest.fail("read again"))
    assert folder.taken() == PATHS
    assert folder.home.stat().st_ino == inode, "one rename for all of them"
    assert not folder.staged.exists()


@pytest.mark.parametrize("how", ["replaced", "removed"])
def test_law_8_a_file_that_is_replaced_after_it_was_read_does_not_come_home(folder: Folder, how: str) -> None:
    assert folder.look()
    if how == "replaced":
        (folder.staged / ".f3.Xy12ab").write_bytes(b"x")
        (folder.staged / ".f3.Xy12ab").rename(folder.staged / "f3")
    else:
        (folder.staged / "f3").unlink()
    assert folder.taken() == [path for path in PATHS if path != "a/b/f3"]
    _settled, mismatches = folder.landing.settle(FILES)
    assert [mismatch.path for mismatch in mismatches] == ["a/b/f3"]


def test_law_8_a_folder_that_changed_just_now_is_not_read_early(folder: Folder) -> None:
    """A change in the same tick would not show. Here the folder is of an hour from now, however slow the machine is."""
    folder.age(folder.staged.stat().st_ctime_ns + 3600 * 10**9 | 1)
    assert not folder.look()
    assert folder.taken() == PATHS


def test_a_filesystem_that_knows_seconds_only_is_not_read_early(folder: Folder) -> None:
    folder.age(OLD_NS // 10**9 * 10**9)
    assert not folder.look()
    assert folder.taken() == PATHS


def test_law_8_another_folder_under_the_same_name_is_read(folder: Folder) -> None:
    assert folder.look()
    folder.staged.rename(folder.staged.with_name("kept"))
    folder.staged.mkdir()
    folder.age()
    assert folder.taken() == []


@pytest.mark.parametrize("when", ["never read early", "before it is read", "after it was read"])
@pytest.mark.parametrize("stranger", [".f1.Xy12ab", "other"])
def test_law_8_what_nobody_promised_stays_in_the_staging_folder(folder: Folder, stranger: str, when: str) -> None:
    if when == "after it was read":
        assert folder.look()
    (folder.staged / stranger).write_bytes(b"x")
    if when == "before it is read":
        folder.age()
        assert folder.look()
    assert folder.taken() == PATHS
    assert sorted(os.listdir(folder.home)) == [file.path[4:] for file in FILES]
    assert os.listdir(folder.staged) == [stranger]


def test_law_8_a_link_to_a_folder_is_not_read_early(folder: Folder) -> None:
    """Its own time stays as it is, whatever becomes of the folder that it leads to."""
    other = folder.staged.with_name("other")
    folder.staged.rename(other)
    folder.staged.symlink_to(other)
    os.utime(folder.staged, ns=(OLD_NS, OLD_NS), follow_symlinks=False)
    assert folder.look(), "it need not be looked at twice"
    (other / "f3").unlink()
    (other / "f3").write_bytes(b"x")
    assert folder.taken() == [path for path in PATHS if path != "a/b/f3"]


def test_a_folder_that_is_there_keeps_what_is_in_it(folder: Folder) -> None:
    folder.home.mkdir(parents=True)
    (folder.home / "mine").write_bytes(b"mine")
    assert folder.look()
    assert folder.taken() == PATHS
    assert (folder.home / "mine").read_bytes() == b"mine"


def test_law_8_a_link_in_its_place_leads_nowhere(folder: Folder, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    folder.home.parent.mkdir()
    folder.home.symlink_to(outside)
    assert folder.look()
    folder.landing.folders.take({"a/b": FILES})
    assert folder.landing.left(FILES) == list(FILES)
    assert os.listdir(outside) == []


def test_one_wrong_file_keeps_no_other_from_its_place(folder: Folder) -> None:
    (folder.staged / "f0").write_bytes(b"x")
    folder.age()
    assert folder.look(), "it need not be looked at twice"
    assert folder.taken() == PATHS[1:]


def test_permissions_are_ours(tmp_path: Path) -> None:
    lines = [dict(entry(f"a/b/f{number}", b"%d" % number), executable=number == 2) for number in range(5)]
    folder = Folder(tmp_path, roster.parse_files(lines))
    assert folder.look()
    assert folder.taken() == PATHS
    runnable = [path for path in PATHS if stat.S_IMODE((tmp_path / path).stat().st_mode) & 0o111]
    assert runnable == ["a/b/f2"]


def test_files_are_counted_once(folder: Folder) -> None:
    folder.look()
    folder.taken()
    assert folder.progress._files_done == 5
    assert folder.landing.settle(FILES) == (PATHS, [])
    assert folder.progress._files_done == 5


def test_time_is_well_past_by_the_clock_of_the_filesystem(folder: Folder) -> None:
    folder.age(folder.staged.stat().st_ctime_ns - 2 * folder_landing._WELL_PAST_NS | 1)
    assert folder.look()
