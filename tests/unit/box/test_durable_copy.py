# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The durable copy: read back, compared, renamed; anything else is a refusal that leaves no half file."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import (
    durable,
    durable_place,
    gates,
    mount_answer,
    records,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import AttemptPaths, Layout
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import Refused

PATH = "c1/a1/out/model.pt"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Layout, dict[str, Any], AttemptPaths, Path]:
    """An attempt with one artifact, and a folder that passes for a mount."""
    monkeypatch.setattr(gates, "durable_problem", lambda durable, root: "")
    layout = Layout(str(tmp_path / "root"))
    paths = layout.attempt("digits", "c1", 1)
    os.makedirs(paths.output)
    Path(paths.output, "model.pt").write_bytes(b"weights")
    mount = tmp_path / "mount"
    run = {
        "project": "p",
        "run_id": "digits",
        "box": "b1",
        "generation": 2,
        "durable": {"kind": "mount", "path": str(mount)},
    }
    return layout, run, paths, mount / "p" / "digits" / "b1" / "g2" / "c1" / "a1" / "out" / "model.pt"


def line(paths: AttemptPaths) -> dict[str, Any]:
    return {"path": PATH, "bytes": 7, "sha256": records.sha256_file(os.path.join(paths.output, "model.pt"))}


def test_a_copy_is_synced_and_not_made_twice(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, run, paths, target = place
    assert durable.copy_artifacts(layout, run, paths, [line(paths)])["state"] == "synced"
    assert target.read_bytes() == b"weights"
    monkeypatch.setattr(durable, "_copy_bytes", lambda *_words: pytest.fail("copied again"))
    assert durable.copy_artifacts(layout, run, paths, [line(paths)])["state"] == "synced"


@pytest.mark.parametrize("arrived", [b"weightz", b"weight", b"", b"weights!"])
def test_a_copy_that_reads_back_differently_is_refused(
    place: Any, monkeypatch: pytest.MonkeyPatch, arrived: bytes
) -> None:
    layout, run, paths, target = place
    monkeypatch.setattr(durable, "_copy_bytes", lambda _source, target, _movement: Path(target).write_bytes(arrived))
    with pytest.raises(Refused) as refused:
        durable.copy_artifacts(layout, run, paths, [line(paths)])
    assert refused.value.code == 21
    assert list(target.parent.iterdir()) == []


def test_a_damaged_earlier_copy_is_replaced(place: Any) -> None:
    layout, run, paths, target = place
    target.parent.mkdir(parents=True)
    target.write_bytes(b"weightz")
    durable.copy_artifacts(layout, run, paths, [line(paths)])
    assert target.read_bytes() == b"weights"


@pytest.mark.parametrize("kind", ["none", "pull", "object"])
def test_what_is_not_copied_from_here_is_never_called_synced(place: Any, kind: str) -> None:
    layout, run, paths, target = place
    run["durable"] = {"kind": kind, "path": ""}
    assert durable.copy_artifacts(layout, run, paths, [line(paths)]) == {"kind": kind, "state": kind, "path": ""}
    assert not target.exists()


def test_a_folder_on_the_same_disk_is_no_mount(tmp_path: Path) -> None:
    mount = {"kind": "mount", "path": str(tmp_path)}
    assert "nothing is mounted" in gates.durable_problem(mount, str(tmp_path))
    assert "not there" in gates.durable_problem({"kind": "mount", "path": str(tmp_path / "x")}, str(tmp_path))
    assert gates.durable_problem({"kind": "pull", "path": ""}, str(tmp_path)) == ""


# --- a mount that hangs while it copies ---------------------------------------------------------------------------

PATIENCE_S = 600.0


class Hanging:
    """``read`` and ``sync`` wait from the moment it hangs until the server comes back."""

    def __init__(self) -> None:
        self.back, self.ended = threading.Event(), threading.Event()

    def __call__(self, *_words: Any) -> None:
        assert self.back.wait(PATIENCE_S)


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    monkeypatch.setattr(mount_answer, "STALL_S", 0.05)
    made = Hanging()
    yield made
    made.back.set()


def test_law_6_a_mount_that_hangs_in_a_copy_is_told_and_the_thread_leaves_nothing(
    place: Any, hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, run, paths, target = place
    real = durable._copy_one

    def copy_one(*words: Any) -> None:
        try:
            real(*words)
        finally:
            hanging.ended.set()

    monkeypatch.setattr(durable, "_copy_one", copy_one)
    monkeypatch.setattr(durable, "_sync", hanging)
    with pytest.raises(Refused, match="the copy of c1/a1 stands still") as refused:
        durable.copy_artifacts(layout, run, paths, [line(paths)])
    assert refused.value.code == 21
    assert "nothing is trained twice" in refused.value.fix
    assert not target.exists()
    # The server comes back: whoever was left behind there must not finish what nobody waits for.
    hanging.back.set()
    assert hanging.ended.wait(PATIENCE_S)
    assert list(target.parent.iterdir()) == []
    monkeypatch.setattr(durable, "_sync", lambda _writer: None)
    # What does answer now may take its time.
    monkeypatch.setattr(mount_answer, "STALL_S", PATIENCE_S)
    assert durable.copy_artifacts(layout, run, paths, [line(paths)])["state"] == "synced"


def test_law_6_a_mount_that_hangs_at_the_done_record_is_told(
    place: Any, hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    _layout, _run, _paths, target = place
    monkeypatch.setattr(durable_place, "put_record", hanging)
    with pytest.raises(Refused, match="the copy of the done record stands still"):
        durable.copy_done({"state": "synced", "path": str(target.parent)}, {})


class Slow:
    """An errand that takes ``looks`` times as long as a stall, and moves ``moves`` times meanwhile."""

    looks, moves = 50, 50
    movement = mount_answer.Movement()

    def __init__(self, _name: str, call: Any) -> None:
        self._call, self._waited = call, 0

    def wait(self, seconds: float) -> bool:
        assert seconds == mount_answer.STALL_S
        self._waited += 1
        if self._waited <= self.moves:
            Slow.movement.moved()
        return self._waited > self.looks

    def result(self) -> Any:
        return self._call()


def test_a_copy_may_take_any_time_as_long_as_it_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount_answer, "Errand", Slow)
    monkeypatch.setattr(mount_answer, "Movement", lambda: Slow.movement)
    assert mount_answer.moving("/mnt", "the copy", lambda movement: movement.count) == Slow.moves
    monkeypatch.setattr(Slow, "moves", 20)
    with pytest.raises(Refused, match="stands still"):
        mount_answer.moving("/mnt", "the copy", lambda movement: movement.count)


def test_each_piece_of_a_copy_shows_that_it_moves(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written, synced every so often, and read back."""
    layout, run, paths, target = place
    monkeypatch.setattr(durable, "_CHUNK", 2)
    monkeypatch.setattr(durable, "_SYNC_EACH", 2)
    synced, movement = [], mount_answer.Movement()
    monkeypatch.setattr(durable, "_sync", lambda writer: synced.append(writer.flush()))
    monkeypatch.setattr(mount_answer, "Movement", lambda: movement)
    durable.copy_artifacts(layout, run, paths, [line(paths)])
    # Four pieces, after every second one a sync, and one at the end; then the new name.
    assert (movement.count, len(synced)) == (4 + 2 + 1, 3)
    big = os.urandom(3 * 256 * 1024)
    Path(paths.output, "model.pt").write_bytes(big)
    before = movement.count
    durable.hash_stable(os.path.join(paths.output, "model.pt"), movement.moved)
    assert movement.count == before + 3
    assert target.read_bytes() == b"weights"
