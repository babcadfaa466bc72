# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Law 3, attacked: a training is killed at every file event, and the disk loses all that was not synced."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tenant_checkpoint
import torch
from checkpoint_runs import Attempt, Crasher, assert_same_training, crasher
from tenant_checkpoint import Checkpointer, find_newest

STEPS = "9"
CHAOS_SEEDS = int(os.environ.get("CHECKPOINT_CHAOS_SEEDS", "8"))
# 1 takes them all, in some minutes; an odd number meets whole and half writes alike.
WRITE_STRIDE = int(os.environ.get("CHECKPOINT_WRITE_STRIDE", "25"))


@pytest.fixture(scope="module")
def machine() -> Iterator[Crasher]:
    with crasher() as running:
        yield running


@pytest.fixture(scope="module")
def calm(machine: Crasher, tmp_path_factory: pytest.TempPathFactory) -> Attempt:
    """The training that nobody disturbed."""
    attempt = Attempt(tmp_path_factory.mktemp("calm"), 1)
    assert machine.run(attempt, "tiny", STEPS) == {"signal": 0, "exit": 0}
    return attempt


def test_the_calm_run_meets_every_kind_of_event(calm: Attempt) -> None:
    names = {line for line in calm.events() if not line.startswith("#")}
    assert names == {
        *("mkdir", "open-folder", "open", "write", "half-write", "fsync", "replace", "unlink"),
        *("open-metrics", "line", "half-line"),
    }
    assert calm.saved_steps() == [1, 2, 4, 6, 8, 9]


def kill_points(events: list[str]) -> list[int]:
    """Every event except that of the many pieces a file is written in, every WRITE_STRIDE-th is taken."""
    names = [line for line in events if not line.startswith("#")]
    writes = [number for number, name in enumerate(names) if name in ("write", "half-write")]
    rest = sorted(set(range(len(names))) - set(writes))
    return sorted(rest + writes[::WRITE_STRIDE])


def count_of(events: list[str]) -> int:
    return sum(not line.startswith("#") for line in events)


def test_killed_at_file_events_it_resumes_and_ends_the_same(machine: Crasher, calm: Attempt, tmp_path: Path) -> None:
    """Each kill is a real SIGKILL. Nothing is lost but what came after the last save that had returned."""
    points = kill_points(calm.events())
    assert len(points) > 60
    killed = 0
    for event in points:
        first, second = Attempt(tmp_path / str(event), 1), Attempt(tmp_path / str(event), 2)
        if machine.run(first, "tiny", STEPS, kill=event)["signal"] == 0:
            # What is noted by the clock makes a run a few events shorter than the calm one was.
            assert count_of(first.events()) <= event
            continue
        killed += 1
        assert machine.run(second, "tiny", STEPS) == {"signal": 0, "exit": 0}, event
        assert second.resumed_from() >= max(first.saved_steps(), default=0), event
        assert_same_training(calm, [first, second])
        shutil.rmtree(tmp_path / str(event))
    assert killed >= 0.95 * len(points)


def test_killed_again_and_again_in_one_folder_it_ends_the_same(machine: Crasher, calm: Attempt, tmp_path: Path) -> None:
    """As a user without the supervisor runs it: the same command in the same folder, until it gets through."""
    for seed in range(CHAOS_SEEDS):
        chance, attempt = random.Random(seed), Attempt(tmp_path / str(seed), 1)
        for _try in range(200):
            if machine.run(attempt, "tiny", STEPS, kill=chance.randrange(2000))["signal"] == 0:
                break
        else:
            pytest.fail(f"seed {seed} never got through")
        assert_same_training(calm, [attempt])
        assert sorted(path.name for path in attempt.checkpoints.iterdir()) == [
            *("attempts.json", "step-0000000008.pt", "step-0000000009.pt")
        ]
        shutil.rmtree(tmp_path / str(seed))


# ------------------------------------------------------------------------------------------ loss of power


class LossyDisk:
    """Watches the helper save into one folder and can say what a power cut may leave of it at any moment.

    Data counts as kept only after fsync of its file; a name made, moved or removed only after fsync of the folder.
    What was not synced may be kept or lost, each change by itself.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.moments: list[list[dict[str, bytes]]] = []
        self.acknowledged: list[int] = []
        self.step_acknowledged = 0
        self._data: dict[int, bytes] = {}
        self._synced: dict[int, bytes] = {}
        self._files: dict[int, int] = {}
        self._names: dict[str, int] = {}
        self._kept_names: dict[str, int] = {}
        self._pending: list[tuple[str, str, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open_file(self, path: str, mode: str) -> Any:
        file = open(path, mode, buffering=0)  # noqa: SIM115 - the helper closes it
        if "w" not in mode:
            return file
        inode = len(self._data)
        self._data[inode] = self._synced[inode] = b""
        self._files[file.fileno()] = inode
        self._change("name", os.path.basename(path), inode)
        disk = self

        class Watched:
            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_error: object) -> None:
                file.close()

            def write(self, data: Any) -> int:
                at, known = file.tell(), disk._data[inode]
                disk._data[inode] = known[:at] + bytes(data) + known[at + len(data) :]
                disk._moment()
                return file.write(data)

            def truncate(self) -> int:
                disk._data[inode] = disk._data[inode][: file.tell()]
                disk._moment()
                return file.truncate()

            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

        return Watched()

    def open(self, path: str, flags: int) -> int:
        descriptor = os.open(path, flags)
        self._files[descriptor] = -1
        return descriptor

    def fsync(self, descriptor: int) -> None:
        inode = self._files[descriptor]
        if inode == -1:
            self._kept_names, self._pending = dict(self._names), []
        else:
            self._synced[inode] = self._data[inode]
        self._moment()

    def replace(self, source: str, target: str) -> None:
        os.replace(source, target)
        inode = self._names.pop(os.path.basename(source))
        self._names[os.path.basename(target)] = inode
        self._pending.append(("move", f"{os.path.basename(source)}>{os.path.basename(target)}", inode))
        self._moment()

    def unlink(self, path: str) -> None:
        os.unlink(path)
        del self._names[os.path.basename(path)]
        self._pending.append(("remove", os.path.basename(path), -1))
        self._moment()

    def _change(self, kind: str, name: str, inode: int) -> None:
        self._names[name] = inode
        self._pending.append((kind, name, inode))
        self._moment()

    def _moment(self) -> None:
        """Every state that the disk may be in after a cut now."""
        states = []
        for kept in itertools.product((False, True), repeat=len(self._pending)):
            names = dict(self._kept_names)
            for (kind, name, inode), is_kept in zip(self._pending, kept, strict=True):
                if is_kept:
                    _apply(names, kind, name, inode)
            for contents in (self._synced, self._data):
                states.append({name: contents[inode] for name, inode in names.items()})
        self.moments.append([state for index, state in enumerate(states) if state not in states[:index]])
        self.acknowledged.append(self.step_acknowledged)


def _apply(names: dict[str, int], kind: str, name: str, inode: int) -> None:
    if kind == "remove":
        names.pop(name, None)
        return
    source, _arrow, target = name.rpartition(">")
    names.pop(source, None)
    names[target] = inode


def save_on(disk: LossyDisk, monkeypatch: pytest.MonkeyPatch, saves: int, keep_last: int) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(tenant_checkpoint, "os", disk)
    monkeypatch.setattr(tenant_checkpoint, "open", disk.open_file, raising=False)
    model = torch.nn.Linear(2, 2)
    checkpoints = Checkpointer({"model": model}, directory=str(disk.folder), keep_last=keep_last, environ={})
    for _save in range(saves):
        checkpoints.step += 1
        checkpoints.save(wait=True)
        disk.step_acknowledged = checkpoints.step
    monkeypatch.undo()
    signal.signal(signal.SIGTERM, handler)


def losses_of(disk: LossyDisk, scratch: Path) -> list[str]:
    """The moments at which a cut would lose an acknowledged save."""
    lost, known = [], set()
    for moment, (states, acknowledged) in enumerate(zip(disk.moments, disk.acknowledged, strict=True)):
        for state in states:
            key = (acknowledged, tuple(sorted((name, len(data)) for name, data in state.items())))
            if key in known:
                continue
            known.add(key)
            folder = scratch / str(len(known))
            folder.mkdir(parents=True)
            for name, data in state.items():
                (folder / name).write_bytes(data)
            found = find_newest([str(folder)])
            if (found.state or {"step": 0})["step"] < acknowledged:
                lost.append(f"moment {moment}: {acknowledged} was saved, {found} is left")
            shutil.rmtree(folder)
    return lost


@pytest.mark.parametrize("keep_last", [1, 2])
def test_a_power_cut_at_any_moment_leaves_the_last_acknowledged_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep_last: int
) -> None:
    disk = LossyDisk(tmp_path / "disk")
    disk.folder.mkdir()
    save_on(disk, monkeypatch, saves=4, keep_last=keep_last)
    assert len(disk.moments) > 100
    assert losses_of(disk, tmp_path / "scratch") == []


def test_without_sync_of_the_folder_the_cut_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = LossyDisk(tmp_path / "disk")
    disk.folder.mkdir()
    monkeypatch.setattr(tenant_checkpoint, "_sync_folder", lambda _folder: None)
    save_on(disk, monkeypatch, saves=2, keep_last=1)
    assert losses_of(disk, tmp_path / "scratch")


def test_without_sync_of_the_file_the_cut_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = LossyDisk(tmp_path / "disk")
    disk.folder.mkdir()
    sync = disk.fsync
    monkeypatch.setattr(disk, "fsync", lambda number: sync(number) if disk._files[number] == -1 else None)
    save_on(disk, monkeypatch, saves=2, keep_last=1)
    assert losses_of(disk, tmp_path / "scratch")
