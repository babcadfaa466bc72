# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Folders for checkpoints on the durable mount: claimed after a look at it, found again by whose work they are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import attempt, durable_checkpoints, gates, records
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import AttemptPaths, Layout
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import Refused

CELL = {"id": "c1", "args": [], "seed": 5}


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setattr(gates, "durable_problem", lambda durable, root: "")
    return Layout(str(tmp_path / "root"))


def run_of(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    run = {
        "project": "p", "box": "b1", "generation": 2, "provider_id": "7", "run_id": "digits",
        "spec_sha256": "a" * 64, "code_sha256": "b" * 64, "durable": {"kind": "mount", "path": str(tmp_path / "mnt")},
    }  # fmt: skip
    return {**run, **changes}


def claimed(layout: Layout, run: dict[str, Any], number: int = 1) -> tuple[str, AttemptPaths, dict[str, Any]]:
    paths, keys = layout.attempt("digits", "c1", number), attempt.work(run, CELL, number)
    return durable_checkpoints.claim(layout, run, paths, keys), paths, keys


def test_box_generation_and_attempt_have_a_folder_of_their_own(layout: Layout, tmp_path: Path) -> None:
    runs = [run_of(tmp_path), run_of(tmp_path, box="b2"), run_of(tmp_path, generation=3)]
    folders = {claimed(layout, run, number)[0] for run in runs for number in (1, 2)}
    assert len(folders) == 6
    assert f"{tmp_path}/mnt/p/digits/b2/g2/c1/a1/out/checkpoints" in folders


def test_the_others_of_the_same_work_are_found_and_no_stranger(layout: Layout, tmp_path: Path) -> None:
    wanted = [claimed(layout, run_of(tmp_path, box="b0"))[0], claimed(layout, run_of(tmp_path, generation=1))[0]]
    for stranger in ({"spec_sha256": "c" * 64}, {"code_sha256": "d" * 64}, {"project": "q"}):
        claimed(layout, run_of(tmp_path, box="b9", **stranger))
    damaged = claimed(layout, run_of(tmp_path, box="b7"))[0]
    Path(damaged).parents[1].joinpath("claim.json").write_text("{")
    _own, paths, keys = claimed(layout, run_of(tmp_path))
    assert sorted(durable_checkpoints.earlier(run_of(tmp_path), paths, keys)) == sorted(wanted)


def test_what_another_machine_of_the_same_number_saved_is_not_written_over(layout: Layout, tmp_path: Path) -> None:
    """The state store was lost, and counts from 1 again."""
    before = Path(claimed(layout, run_of(tmp_path))[0])
    (before / "step-7.pt").write_bytes(b"saved")
    assert claimed(layout, run_of(tmp_path))[0] == str(before), "the same machine may claim it again"
    again = run_of(tmp_path, provider_id="8")
    with pytest.raises(Refused, match="of another machine, 7, which had the same name and generation") as refused:
        claimed(layout, again)
    assert refused.value.code == 13
    generation = tmp_path / "mnt/p/digits/b1/g2"
    assert f"rename {generation} " in refused.value.fix
    generation.rename(f"{generation}.lost")
    own, paths, keys = claimed(layout, again)
    assert own == str(before)
    [kept] = durable_checkpoints.earlier(again, paths, keys)
    assert (Path(kept) / "step-7.pt").read_bytes() == b"saved"


@pytest.mark.parametrize("kind", ["none", "pull", "object"])
def test_without_a_mount_there_is_no_folder(layout: Layout, tmp_path: Path, kind: str) -> None:
    run = run_of(tmp_path, durable={"kind": kind, "path": ""})
    folder, paths, keys = claimed(layout, run)
    assert (folder, durable_checkpoints.earlier(run, paths, keys)) == ("", [])


def test_a_mount_that_went_after_the_gate_is_refused(tmp_path: Path) -> None:
    """Same device as the root: the folder below would take the files and fill the disk of the box."""
    layout, run = Layout(str(tmp_path)), run_of(tmp_path)
    os.makedirs(run["durable"]["path"])
    with pytest.raises(Refused, match="nothing is mounted there") as refused:
        claimed(layout, run)
    assert refused.value.code == 13
    assert os.listdir(run["durable"]["path"]) == []


def test_a_claim_that_reads_back_differently_is_refused(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "sha256_file", lambda path: "0" * 64)
    with pytest.raises(Refused, match="reads back with another hash") as refused:
        claimed(layout, run_of(tmp_path))
    assert refused.value.code == 13


def test_only_a_checkpoint_counts_as_one(layout: Layout) -> None:
    paths = layout.attempt("digits", "c1", 1)
    os.makedirs(os.path.join(paths.checkpoints, "quarantine"))
    Path(paths.checkpoints, "attempts.json").write_text("{}")
    Path(paths.checkpoints, ".step-0000000001.pt.tmp").write_text("half")
    assert not attempt._has_checkpoint(paths)
    Path(paths.checkpoints, "step-0000000001.pt").write_text("whole")
    assert attempt._has_checkpoint(paths)


HALVES = (".step-0000000007.pt.tmp", ".step-0000000007.dcp.tmp/rank-0.pt", ".checkpoint-7.tmp/optimizer.pt")


def half_saved(folder: str) -> Path:
    """A checkpoint folder with one that is whole, files of somebody else, and what a kill leaves of saves."""
    for name in (*HALVES, "step-0000000006.pt", "notes.tmp"):
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("bytes")
    return Path(folder)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_a_killed_attempt_had_half_saved_goes_when_the_next_one_begins(layout: Layout, tmp_path: Path) -> None:
    run = run_of(tmp_path)
    first = half_saved(attempt.claim(layout, run, CELL, 1).checkpoints)
    attempt.claim(layout, run, CELL, 1)
    assert len(names(first)) == len(HALVES) + 2, "its own helper does that"
    attempt.claim(layout, run, CELL, 2)
    assert names(first) == {"step-0000000006.pt", "notes.tmp"}


def test_on_the_mount_it_goes_too_but_only_that_of_this_box_before(layout: Layout, tmp_path: Path) -> None:
    before = [
        half_saved(claimed(layout, run_of(tmp_path))[0]),
        half_saved(claimed(layout, run_of(tmp_path, generation=1), 9)[0]),
    ]
    living = [
        half_saved(claimed(layout, run_of(tmp_path, box="b2"))[0]),
        half_saved(claimed(layout, run_of(tmp_path, generation=3))[0]),
        half_saved(claimed(layout, run_of(tmp_path), 3)[0]),
    ]
    for folder in before:
        half_saved(str(folder))
    claimed(layout, run_of(tmp_path), 2)
    assert [names(folder) for folder in before] == [{"step-0000000006.pt", "notes.tmp"}] * 2
    assert all(len(names(folder)) == len(HALVES) + 2 for folder in living)
