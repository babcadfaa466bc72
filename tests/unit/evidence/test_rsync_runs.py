# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How the files of a pull are parted into runs of rsync, with the runs themselves stood in for."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
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
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.roster import RosterFile

WAIT_S = 600.0
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

    def one_run(_route: Any, run: Any, _deadline: Any, _own: bool) -> transfer.Attempt:
        seen.append((list(run.folders), len(run.files)))
        end = next(iter(strangers & set(run.folders)), None) or (ends.pop(0) if ends else 0)
        if isinstance(end, str):
            raise whole_folders.NotPromised(end, f"{end}/stranger")
        return transfer.Attempt("rsync", end)

    monkeypatch.setattr(rsync_carrier, "_one_run", one_run)
    rsync_carrier.move_by_rsync(route_of(tmp_path, roster), roster, carrier.Deadline(60), False)
    return seen


def route_of(folder: Path, roster: list[RosterFile], **more: Any) -> carrier.Route:
    counts = progress.Progress(None, 1, 1)
    return carrier.Route(
        transfer.Link(),
        True,
        "/far",
        str(folder),
        "python3",
        transfer.RsyncWishes(20),
        counts,
        landing.Landing(str(folder), counts),
        whole_folders.WholeFolders(roster),
        **more,
    )


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


@pytest.mark.parametrize("what", ["beside", "asks"])
def test_what_is_done_beside_the_runs_is_done_once_while_they_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    done = threading.Event()
    calls: list[bool] = []

    def one_run(route: Any, *_unused: Any) -> transfer.Attempt:
        route.begun.set()
        calls.append(done.wait(WAIT_S))
        return transfer.Attempt("rsync", 0)

    monkeypatch.setattr(rsync_carrier, "_one_run", one_run)
    monkeypatch.setattr(rsync_carrier, "_WORTH_TWO", 80)
    monkeypatch.setattr(rsync_carrier, "_WORTH_ASKING_S", 0.1)
    route = route_of(tmp_path, FILES, **{what: carrier.Once(lambda: calls.append(False) or done.set())})
    rsync_carrier.move_by_rsync(route, FILES, carrier.Deadline(60), False)
    assert calls == [False, True, True, True], "the last run asks by name for what did not come"


def test_nothing_is_asked_where_all_runs_end_sooner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rsync_carrier, "_one_run", lambda *_unused: transfer.Attempt("rsync", 0))
    monkeypatch.setattr(rsync_carrier, "_WORTH_TWO", 80)
    monkeypatch.setattr(rsync_carrier, "_WORTH_ASKING_S", WAIT_S)
    asked: list[str] = []
    route = route_of(tmp_path, FILES, asks=carrier.Once(lambda: asked.append("offer")))
    rsync_carrier._run_all(route, rsync_carrier._halves(FILES, ["a", "b"]), carrier.Deadline(60), True)
    assert asked == []


@pytest.mark.parametrize("what", ["beside", "asks"])
@pytest.mark.parametrize("worth_two", [80, 81])
def test_a_refusal_beside_the_runs_ends_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worth_two: int, what: str
) -> None:
    runs: list[bool] = []

    def one_run(route: Any, _run: Any, deadline: carrier.Deadline, _own: bool) -> transfer.Attempt:
        route.begun.set()
        until = time.monotonic() + WAIT_S
        while not deadline.passed and time.monotonic() < until:
            time.sleep(0.01)
        runs.append(deadline.passed)
        return transfer.Attempt("rsync", -15, "the whole transfer took longer than its deadline")

    def refuse() -> None:
        raise TenantFailure("evidence_missing", "the box does not have it")

    monkeypatch.setattr(rsync_carrier, "_one_run", one_run)
    monkeypatch.setattr(rsync_carrier, "_WORTH_TWO", worth_two)
    monkeypatch.setattr(rsync_carrier, "_WORTH_ASKING_S", 0.1)
    route = route_of(tmp_path, FILES, **{what: carrier.Once(refuse)})
    with pytest.raises(TenantFailure, match="does not have it"):
        rsync_carrier.move_by_rsync(route, FILES, carrier.Deadline(10 * WAIT_S), False)
    assert runs == ([True, True] if worth_two == 80 else []), "one run alone does not begin"


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
