# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the box has said survives a power cut: bytes synced, then their name, then its folder, then the next word."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import (
    attempt,
    control,
    durable_checkpoints,
    durable_place,
    finish,
    gates,
    records,
    run_record,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import AttemptPaths, Layout
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import Refused
from lasting_disk import LastingDisk


class Box:
    """One cell of a run with a folder that passes for its mount."""

    def __init__(self, folder: Path, disk: LastingDisk) -> None:
        self.disk, self.layout, self.mount = disk, Layout(str(folder / "root")), folder / "mount"
        self.run = run_record.check_run(
            {
                "project": "p", "box": "b1", "generation": 1, "provider_id": "7", "run_id": "digits",
                "spec_sha256": "a" * 64, "code_sha256": "b" * 64, "python": "/usr/bin/python3", "workdir": "/",
                "command": ["true"], "cells": [{"id": "c1"}], "artifacts": [{"glob": "*.txt", "loader": "none"}],
                "durable": {"kind": "mount", "path": str(self.mount)},
            }
        )  # fmt: skip
        self.keys = attempt.work(self.run, self.run["cells"][0], 1)

    def claim(self) -> AttemptPaths:
        return attempt.claim(self.layout, self.run, self.run["cells"][0], 1)

    def trained(self) -> AttemptPaths:
        """The trainer has ended well; what it left was written without any care."""
        paths = self.claim()
        for name in ("one.txt", "two.txt"):
            Path(paths.output, name).write_text(f"result {name}")
        attempt.write_exit(paths, self.keys, wrapper=0, child=0)
        return paths

    def finish(self) -> str:
        return finish.finish(self.layout, self.run, self.run["cells"][0], 1)

    @property
    def place(self) -> str:
        return durable_place.destination(self.run, self.layout.attempt("digits", "c1", 1))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> LastingDisk:
    return LastingDisk(monkeypatch)


@pytest.fixture
def box(tmp_path: Path, disk: LastingDisk, monkeypatch: pytest.MonkeyPatch) -> Box:
    monkeypatch.setattr(gates, "durable_problem", lambda _durable, _root: "")
    return Box(tmp_path, disk)


def _status(box: Box) -> str:
    attempt.write_status(box.claim(), box.keys, state="running")
    return box.claim().status


def _exit(box: Box) -> str:
    attempt.write_exit(box.claim(), box.keys, wrapper=0, child=0)
    return box.claim().exit


def _done(box: Box) -> str:
    paths = box.trained()
    assert box.finish() == "done"
    return paths.done


def _claim_on_mount(box: Box) -> str:
    durable_checkpoints.claim(box.layout, box.run, box.claim(), box.keys)
    return os.path.join(box.place, "claim.json")


def _seal_put_aside(box: Box) -> str:
    records.write_record(box.layout.seal, "seal", {})
    return control.put_seal_aside(box.layout)


WRITERS: dict[str, Callable[[Box], str]] = {
    "claim": lambda box: box.claim().claim,
    "status": _status,
    "exit": _exit,
    "done": _done,
    "claim on the mount": _claim_on_mount,
    "seal put aside": _seal_put_aside,
}


@pytest.mark.parametrize("record", WRITERS)
def test_law_1_a_record_that_was_written_is_there_after_a_power_cut(box: Box, record: str) -> None:
    path = WRITERS[record](box)
    assert box.disk.would_keep(path), f"{record}: {box.disk.lost_names()}"


def test_a_record_is_whole_at_every_moment(box: Box, tmp_path: Path) -> None:
    """Whoever has the old one open reads it to its end, and whoever looks while it is written finds the old one."""
    path, seen = tmp_path / "status.json", []
    records.write_bytes(str(path), b"old and long")
    box.disk.after_sync = lambda _path: seen.append(path.read_bytes())
    with open(path, "rb") as reader:
        records.write_bytes(str(path), b"new")
        assert reader.read() == b"old and long"
    assert (seen, path.read_bytes()) == ([b"old and long"], b"new")


@pytest.mark.parametrize("writer", ["on the box", "on the mount"])
def test_a_disk_that_cannot_sync_leaves_the_record_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    write: dict[str, Callable[[dict[str, Any]], object]] = {
        "on the box": lambda record: records.write_record(str(tmp_path / "done.json"), "done", record),
        "on the mount": lambda record: durable_place.put_record(str(tmp_path), "done", record),
    }
    write[writer]({"attempt": 1})

    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises((OSError, Refused)):
        write[writer]({"attempt": 2})
    assert records.read_record(str(tmp_path / "done.json"), "done")["attempt"] == 1


def test_law_1_the_copy_lasts_before_the_record_that_promises_it(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each artifact on the mount, then the done record there, then that of the box; each has to last first."""
    paths = box.trained()
    names = [os.path.join(box.place, "out", name) for name in ("one.txt", "two.txt")]
    on_mount = os.path.join(box.place, "done.json")
    lasting: dict[str, list[str]] = {}
    renamed = os.replace

    def look(source: str, target: str) -> None:
        if target in (on_mount, paths.done):
            lasting[target] = [path for path in (*names, on_mount) if box.disk.would_keep(path)]
        renamed(source, target)

    monkeypatch.setattr(os, "replace", look)
    assert box.finish() == "done"
    assert lasting == {on_mount: names, paths.done: [*names, on_mount]}


@pytest.mark.parametrize("damaged", ["out/one.txt", "done.json"])
def test_law_1_what_the_mount_gives_back_is_what_counts(box: Box, damaged: str) -> None:
    """It took every byte and the sync, and keeps another one."""
    paths = box.trained()
    target = os.path.join(box.place, damaged)

    def damage(path: str) -> None:
        if path.startswith(target):
            with open(path, "r+b") as writer:
                writer.write(b"?")

    box.disk.after_sync = damage
    assert box.finish() == "failed"
    assert "reads back with another hash" in attempt.read(paths.status, "status")["why"]
    assert not os.path.exists(target)
    assert not os.path.exists(paths.done)


def test_a_mount_that_cannot_sync_folders_takes_copies_all_the_same(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Network and FUSE mounts are such; the files themselves are synced and read back."""
    paths, real = box.trained(), records.fsync_directory

    def refused_on_the_mount(folder: str) -> None:
        if folder.startswith(str(box.mount)):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(folder)

    monkeypatch.setattr(records, "fsync_directory", refused_on_the_mount)
    assert box.finish() == "done"
    assert all(str(box.mount) in name for name in box.disk.lost_names())
    assert attempt.read(paths.done, "done")["durable"]["state"] == "synced"
