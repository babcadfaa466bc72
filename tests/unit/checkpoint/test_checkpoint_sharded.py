# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Sharded checkpoints that cannot be written, or not be loaded: what is said, what stays, where it goes on."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tenant_checkpoint
import torch
from tenant_checkpoint import Checkpointer, CheckpointError, folder_manifest, seal_folder

MIB = 1 << 20


def checkpoints(folder: Path, **options: Any) -> Checkpointer:
    """Of a model of 2 MiB, in pieces."""
    model = torch.nn.Linear(512, 1024, bias=False)
    options.setdefault("environ", {})
    return Checkpointer({"model": model}, directory=str(folder), sharded=True, **options)


def saved(folder: Path, *steps: int) -> list[Path]:
    saver = checkpoints(folder, keep_last=1000)
    paths = []
    for saver.step in steps:
        paths.append(Path(saver.save(wait=True)))
    return paths


def names(folder: Path) -> list[str]:
    """All but what counts the attempts."""
    return sorted(path.name for path in folder.iterdir() if path.name != "attempts.json")


@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """A disk on which whatever writes more than ``size`` into a file fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_that_takes_no_pieces_costs_that_save_only(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    saver = checkpoints(tmp_path / "c", metrics=str(metrics))
    saver.step = 1
    saver.save(wait=True)
    saver.step = 2
    for _try in range(2):
        with (
            no_file_larger_than(MIB),
            pytest.raises(CheckpointError, match=r"cannot save .*2\.dcp: rank 0: .*1\.dcp is safe\. Make room"),
        ):
            saver.save(wait=True)
        assert names(tmp_path / "c") == ["step-0000000001.dcp"], "what was half written takes room"
    assert Path(saver.save(wait=True)).is_dir()
    told = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [line["safe"] for line in told if "checkpoint_failed" in line] == [
        str(tmp_path / "c/step-0000000001.dcp")
    ] * 2
    assert checkpoints(tmp_path / "c").load_latest() == 2


def test_a_folder_that_cannot_be_made_is_told_as_a_failed_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = saved(tmp_path, 1)
    saver = checkpoints(tmp_path)
    saver.load_latest()
    saver.step = 2
    made = os.mkdir

    def refuse(path: str, *arguments: Any) -> None:
        if path.endswith(".dcp.tmp"):
            raise OSError(28, "No space left on device", path)
        made(path, *arguments)

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(CheckpointError, match=rf"cannot save .*No space left.*{first} is safe.*Make room"):
        saver.save()
    monkeypatch.undo()
    assert Path(saver.save(wait=True)).is_dir()


class Kept:
    def __init__(self, **state: Any) -> None:
        self._state = state

    def state_dict(self) -> dict[str, Any]:
        return self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._state = state


class DTensor:
    """By its name: a real one needs several ranks."""


def test_pieces_outside_of_models_and_optimizers_must_be_named_as_a_ranks_own(tmp_path: Path) -> None:
    """Rank 0 would save its own for all of them."""
    objects = {"model": torch.nn.Linear(1, 1), "average": Kept(shadow=[{"of": DTensor()}])}
    saver = Checkpointer(objects, directory=str(tmp_path), sharded=True, environ={})
    with pytest.raises(ValueError, match=r"\['average'\] hold a rank's own pieces.*name them in per_rank"):
        saver.save()


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("name", ["common.pt", "rank-0.pt"])
def test_one_that_this_torch_does_not_load_is_left_and_the_one_before_it_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    _older, newest = saved(tmp_path / "c", 1, 2)
    torch.save({"schema": 1, "world": 1, "evil": Evil()}, newest / name)
    (newest / "manifest.json").unlink()
    seal_folder(str(newest), {"step": 2, "world": 1})
    resumed = checkpoints(tmp_path / "c")
    assert resumed.load_latest() == 1
    assert newest.is_dir()
    assert not (tmp_path / "executed").exists()
    left = (newest / name).read_bytes()
    resumed.step = 2
    resumed.save(wait=True)
    assert (tmp_path / "c" / "quarantine" / newest.name / name).read_bytes() == left, "it may be whole"
    assert checkpoints(tmp_path / "c").load_latest() == 2


def test_with_none_that_this_torch_loads_it_refuses_to_start_at_0(tmp_path: Path) -> None:
    (only,) = saved(tmp_path, 3)
    torch.save({"evil": Evil()}, only / "common.pt")
    (only / "manifest.json").unlink()
    seal_folder(str(only), {"step": 3, "world": 1})
    with pytest.raises(CheckpointError, match=r"cannot be read now by rank 0.*unsupported.*Nothing was changed"):
        checkpoints(tmp_path).load_latest()
    assert only.is_dir()


def test_a_save_whose_last_sync_failed_can_be_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has its name by then, and no folder takes the name of another."""
    (first,) = saved(tmp_path, 1)
    saver = checkpoints(tmp_path)
    saver.load_latest()
    saver.step = 2
    sync = tenant_checkpoint._sync_folder

    def fail(folder: str) -> None:
        if (tmp_path / "step-0000000002.dcp").exists():
            raise OSError(errno.EIO, "Input/output error", folder)
        sync(folder)

    monkeypatch.setattr(tenant_checkpoint, "_sync_folder", fail)
    with pytest.raises(CheckpointError, match=rf"Input/output error.*{first} is safe"):
        saver.save(wait=True)
    monkeypatch.undo()
    path = Path(saver.save(wait=True))
    assert folder_manifest(str(path))["step"] == 2
    assert names(tmp_path) == ["quarantine", first.name, path.name]


def test_what_cannot_be_kept_is_not_overwritten(tmp_path: Path) -> None:
    older, newest = saved(tmp_path, 1, 2)
    saver = checkpoints(tmp_path)
    saver.step = 2  # a script that does not ask what is there
    (tmp_path / "quarantine").write_text("no folder")
    with pytest.raises(CheckpointError, match=rf"{newest} is in the way .* cannot be moved to quarantine/"):
        saver.save(wait=True)
    assert folder_manifest(str(newest))["step"] == 2
    assert names(tmp_path) == ["quarantine", older.name, newest.name]


def test_another_shape_than_was_saved_is_a_checkpoint_error(tmp_path: Path) -> None:
    """torch raises what is no Exception, which passes by all that a script catches."""
    (only,) = saved(tmp_path, 1)
    model = torch.nn.Linear(256, 1024, bias=False)
    wider = Checkpointer({"model": model}, directory=str(tmp_path), sharded=True, environ={})
    with pytest.raises(CheckpointError, match=rf"{only} is whole, but .* rank 0: .*[Ss]ize.* It is as it was\. Build"):
        wider.load_latest()
    assert folder_manifest(str(only))["step"] == 1


@pytest.mark.parametrize("own", ["damaged", "unreadable"])
def test_what_one_rank_finds_damaged_is_damaged_whatever_the_others_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str
) -> None:
    """Before any rank loads: a rank whose share is whole would make of it what torch says of the damage."""
    older, newest = saved(tmp_path, 1, 2)
    saver, ranks_say = checkpoints(tmp_path), {"damaged": "unreadable", "unreadable": "damaged"}
    loaded = []
    load = tenant_checkpoint._load_tensors
    monkeypatch.setattr(
        tenant_checkpoint, "_load_tensors", lambda path, mmap=False: (loaded.append(path), load(path, mmap))[1]
    )
    error = tenant_checkpoint.CheckpointDamaged("torn") if own == "damaged" else OSError(errno.ESTALE, "stale")

    def compare(path: str, share: int = 0, of: int = 1) -> dict[str, Any]:
        if path == str(newest):
            raise error
        return folder_manifest(path, share, of)

    monkeypatch.setattr(tenant_checkpoint, "folder_manifest", compare)
    gather = saver._ranks.gather
    other = ("of the other rank", ranks_say[own])
    monkeypatch.setattr(saver._ranks, "gather", lambda value, behind=False: [*gather(value), value and other])
    assert saver.load_latest() == 1
    assert (tmp_path / "quarantine" / newest.name).is_dir()
    assert not [path for path in loaded if newest.name in path]
    assert older.is_dir()


class Killed(BaseException):
    """Nothing that the process would do after this is done."""


class Events:
    """Changes of names in a folder, in this process; from the ``fatal``-th on none of them is made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fatal: int) -> None:
        self.seen, self._fatal = 0, fatal
        for name in ("rename", "replace", "unlink", "mkdir", "rmdir"):
            monkeypatch.setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, act: Any) -> Any:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.seen += 1
            if self.seen > self._fatal:
                raise Killed
            return act(*arguments, **options)

        return counted

    @property
    def killed(self) -> bool:
        return self.seen > self._fatal


def test_a_kill_at_any_event_while_one_makes_way_loses_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _older, newest = saved(tmp_path / "calm", 1, 2)
    torch.save({"schema": 1, "world": 1, "evil": Evil()}, newest / "common.pt")
    (newest / "manifest.json").unlink()
    seal_folder(str(newest), {"step": 2, "world": 1})
    content = (newest / "common.pt").read_bytes()
    monkeypatch.chdir(tmp_path)
    steps, killed = set(), True
    for fatal in range(1000):
        folder = tmp_path / str(fatal)
        shutil.copytree(tmp_path / "calm", folder)
        saver = checkpoints(folder, keep_last=1)
        assert saver.load_latest() == 1
        saver.step = 2
        with monkeypatch.context() as patched:
            events = Events(patched, fatal)
            with contextlib.suppress(Killed, CheckpointError):
                saver.save(wait=True)
            killed = events.killed
        kept = [path.read_bytes() for path in folder.glob("**/step-0000000002.dcp/common.pt")]
        assert content in kept, f"event {fatal}"
        resumed = checkpoints(folder)
        steps.add(resumed.load_latest())
        resumed.step = 3
        resumed.save(wait=True)
        assert checkpoints(folder).load_latest() == 3
        if not killed:
            break
    assert not killed
    assert steps == {1, 2}
