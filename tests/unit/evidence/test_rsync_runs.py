# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How the files of a pull are parted into runs of rsync, with the runs themselves stood in for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import (
    carrier,
    landing,
    progress,
    rsync_carrier,
    transfer,
    whole_folders,
)
from ansible_collections.tenant.gpu.plugins.module_utils.roster import RosterFile

FILES = [RosterFile(f"{folder}/f{number}", 10, "a" * 64) for folder in ("a", "b") for number in range(40)]


def runs_of(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ends: list[int | str],
    roster: list[RosterFile] = FILES,
    strangers: frozenset[str] = frozenset(),
) -> list[tuple[list[str], int]]:
    """(folders, files) of each run, which end in turn with a status or with a stranger in a folder, then well.

    Folders among ``strangers`` hold one whenever they are asked for.
    """
    seen: list[tuple[list[str], int]] = []

    def one_run(_route: Any, files: Any, _deadline: Any, _own: bool, folders: Any = ()) -> transfer.Attempt:
        seen.append((list(folders), len(files)))
        end = next(iter(strangers & set(folders)), None) or (ends.pop(0) if ends else 0)
        if isinstance(end, str):
            raise whole_folders.NotPromised(end, f"{end}/stranger")
        return transfer.Attempt("rsync", end)

    monkeypatch.setattr(rsync_carrier, "_one_run", one_run)
    counts = progress.Progress(None, 1, 1)
    route = carrier.Route(
        transfer.Link(),
        True,
        "/far",
        str(tmp_path),
        "python3",
        transfer.RsyncWishes(20),
        counts,
        landing.Landing(str(tmp_path), counts),
        whole_folders.WholeFolders(roster),
    )
    rsync_carrier.move_by_rsync(route, roster, carrier.Deadline(60), False)
    return seen


def test_whole_folders_go_first_and_what_did_not_come_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runs_of(tmp_path, monkeypatch, []) == [(["a", "b"], 80), ([], 80)]


def test_a_stranger_takes_its_folder_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runs_of(tmp_path, monkeypatch, ["a"]) == [(["a", "b"], 80), (["b"], 40), ([], 80)]


def test_law_8_a_box_that_names_files_without_end_is_asked_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert runs_of(tmp_path, monkeypatch, [transfer.NO_MEMORY]) == [(["a", "b"], 80), ([], 80)]


def test_a_broken_connection_ends_the_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runs_of(tmp_path, monkeypatch, [255]) == [(["a", "b"], 80)]


def folders_of_40(count: int) -> list[RosterFile]:
    return [RosterFile(f"d{folder}/f{number}", 10, "a" * 64) for folder in range(count) for number in range(40)]


def test_many_files_in_whole_folders_come_by_two_runs_of_equal_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rsync_carrier, "_WORTH_TWO", 200)
    runs = runs_of(tmp_path, monkeypatch, [], folders_of_40(5))
    by_folder = sorted(run for run in runs if run[0])
    assert by_folder == [(["d0", "d1", "d2"], 120), (["d3", "d4"], 80)]
    assert runs[2:] == [([], 200)], "what did not come is asked for by name"


def test_one_folder_is_not_parted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rsync_carrier, "_WORTH_TWO", 1)
    assert runs_of(tmp_path, monkeypatch, [], folders_of_40(1)) == [(["d0"], 40), ([], 40)]


def test_a_stranger_in_one_half_takes_one_folder_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rsync_carrier, "_WORTH_TWO", 160)
    runs = runs_of(tmp_path, monkeypatch, [], folders_of_40(4), frozenset({"d3"}))
    asked = [folders for folders, _files in runs]
    assert sorted(asked[:2]) == [["d0", "d1"], ["d2", "d3"]]
    # Nothing settles here, so that all the others are asked for once more.
    assert sorted(asked[2:-1]) == [["d0", "d1", "d2"]]
    assert asked[-1] == []


@pytest.mark.parametrize(("files", "enough"), [(0, False), (1_000_000, True)])
def test_law_8_memory_of_a_run_is_bounded_by_what_it_was_asked_for(files: int, enough: bool) -> None:
    hungry = "import mmap, sys; sys.stdin.read(1); mmap.mmap(-1, 1200 * 1024 * 1024)"
    with subprocess.Popen([sys.executable, "-c", hungry], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        rsync_carrier._bound_memory(process.pid, files)
        _out, said = process.communicate(b"x", timeout=600)
    assert (process.returncode == 0) is enough
    assert (b"Cannot allocate memory" in said) is not enough
