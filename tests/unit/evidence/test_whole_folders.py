# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which folders a pull asks for by one name, and what it does about files that nobody promised."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import delivery, landing, progress, whole_folders
from ansible_collections.tenant.gpu.plugins.module_utils.roster import RosterFile
from ansible_collections.tenant.gpu.plugins.module_utils.transfer import SMALL_BYTES
from hypothesis import given
from hypothesis import strategies as st


def many(folder: str, count: int = 40, size: int = 10) -> list[RosterFile]:
    prefix = f"{folder}/" if folder else ""
    return [RosterFile(f"{prefix}f{number}", size, "a" * 64) for number in range(count)]


@pytest.mark.parametrize(
    ("roster", "asked"),
    [
        (many("a") + many("b/c"), ["a", "b/c"]),
        (many("a", 31), []),
        (many(""), []),
        (many("a") + many("a/b"), ["a/b"]),
        (many("a") + [RosterFile("a/b/c/deep", 1, "a" * 64)], []),
        (many("a") + many("ab"), ["a", "ab"]),
        (many("a") + [RosterFile("a/big", SMALL_BYTES + 1, "a" * 64)], []),
        (many("a") + [RosterFile("a/big", SMALL_BYTES, "a" * 64)], ["a"]),
    ],
)
def test_folders_of_many_small_files_with_nothing_below(roster: list[RosterFile], asked: list[str]) -> None:
    assert whole_folders.WholeFolders(roster).wanted(roster) == asked


def test_a_folder_of_which_some_files_are_home_is_not_fetched_again() -> None:
    roster = many("a") + many("b")
    assert whole_folders.WholeFolders(roster).wanted(roster[1:]) == ["b"]


def test_a_folder_that_held_a_stranger_is_asked_for_by_file_and_after_three_all_are() -> None:
    roster = many("a") + many("b") + many("c") + many("d")
    whole = whole_folders.WholeFolders(roster)
    whole.surprised("a")
    assert whole.wanted(roster) == ["b", "c", "d"]
    whole.surprised("b")
    whole.surprised("c")
    assert whole.wanted(roster) == []


_PATHS = st.lists(st.sampled_from("abc"), max_size=3).map(lambda parts: "".join(f"{part}/" for part in parts))


@given(st.dictionaries(_PATHS, st.integers(1, 70), max_size=6), st.data())
def test_what_is_asked_for_holds_nothing_but_what_is_wanted(counts: dict[str, int], data: st.DataObject) -> None:
    roster = [file for prefix, count in counts.items() for file in many(prefix.rstrip("/"), count)]
    home = data.draw(st.sets(st.sampled_from(roster), max_size=5)) if roster else set()
    wanted = [file for file in roster if file not in home]
    for folder in whole_folders.WholeFolders(roster).wanted(wanted):
        assert folder, "the top is never asked for whole"
        assert all(file in wanted for file in roster if file.path.startswith(f"{folder}/"))


class Reading:
    """rsync names files of ``roster``, which lie in the staging folder already."""

    def __init__(self, root: Path, roster: list[RosterFile]) -> None:
        self.landing = landing.Landing(str(root), progress.Progress(None, len(roster), 0))
        self.staged = Path(delivery.open_staging(str(root), roster))
        folders = {whole_folders.folder_of(file): many(whole_folders.folder_of(file)) for file in roster}
        self.reader = whole_folders.FolderArrivals(self.landing, folders)


@pytest.mark.parametrize("line", [b"a/stranger", b"a/below/", b"a/f1/x", b"a/caf\xe9", b"a/F1"])
def test_law_8_a_stranger_in_a_folder_is_told_from_what_was_promised(tmp_path: Path, line: bytes) -> None:
    reading = Reading(tmp_path, [*many("a"), *many("a/f1")] if line == b"a/f1/x" else many("a"))
    reading.reader.line(b"a/f1")
    with pytest.raises(whole_folders.NotPromised):
        reading.reader.line(line)


def test_law_8_two_names_in_turn_have_each_folder_read_early_but_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    reading = Reading(tmp_path, [*many("a"), *many("b")])
    monkeypatch.setattr(reading.landing.folders, "look", lambda folder, files: looked.append(folder) or True)
    for _turn in range(200):
        reading.reader.line(b"a/f1")
        reading.reader.line(b"b/f1")
    assert looked == ["a", "b"]


def test_a_folder_too_fresh_to_be_read_is_looked_at_again_while_the_next_one_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, looked = [False, False, True], list[str]()
    reading = Reading(tmp_path, [*many("a"), *many("b")])
    monkeypatch.setattr(whole_folders, "_BETWEEN_LOOKS_S", 0.0)
    monkeypatch.setattr(reading.landing.folders, "look", lambda folder, _files: looked.append(folder) or answers.pop(0))
    for line in (b"a/f1", b"b/f1", b"b/f2", b"b/f3", b"b/f4"):
        reading.reader.line(line)
    assert looked == ["a", "a", "a"]


@pytest.mark.parametrize(
    "line", [b"a/", b"", b"Number of files: 41 (reg: 40, dir: 1)", b"Literal data: 400 bytes", b"other/thing", b"top"]
)
def test_what_rsync_says_besides_is_no_stranger(tmp_path: Path, line: bytes) -> None:
    Reading(tmp_path, many("a")).reader.line(line)
