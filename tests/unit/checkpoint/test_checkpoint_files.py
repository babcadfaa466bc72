# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Files of the checkpoint helper: what counts as whole, which one is taken, what happens to a damaged one."""

from __future__ import annotations

import ast
import errno
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import tenant_checkpoint
import torch
from ansible_collections.tenant.gpu.plugins.module_utils.box import half_saved
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tenant_checkpoint import (
    CheckpointDamaged,
    Checkpointer,
    CheckpointError,
    checkpoint_name,
    find_newest,
    manifest_of,
    read_checkpoint,
    seal_archive,
    step_of,
    write_json,
    write_torch,
)


def save_at(folder: Path, step: int, weight: float | None = None, **options: Any) -> Path:
    """A whole checkpoint of a one-number model whose weight is its step."""
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, float(step) if weight is None else weight)
    checkpoints = Checkpointer({"model": model}, directory=str(folder), keep_last=1000, environ={}, **options)
    checkpoints.step = step
    return Path(checkpoints.save(wait=True))


def weight_of(state: dict[str, Any] | None) -> float:
    assert state is not None
    return float(state["objects"]["model"]["weight"])


def unreadable(monkeypatch: pytest.MonkeyPatch, *broken: Path) -> None:
    """Reading one of ``broken`` fails as a bad disk does. (Permissions would not stop root.)"""
    whole = zipfile.ZipFile

    def fail(path: Any, mode: Any = "r") -> zipfile.ZipFile:
        if isinstance(path, str) and Path(path) in broken:
            raise OSError(errno.EIO, "Input/output error", path)
        return whole(path, mode)

    monkeypatch.setattr(tenant_checkpoint.zipfile, "ZipFile", fail)


def test_the_helper_is_python_3_8() -> None:
    source = Path(tenant_checkpoint.__file__).read_text()
    ast.parse(source, feature_version=(3, 8))


@given(st.integers(0, 10**10 - 1))
def test_names_carry_their_step_and_sort_by_it(step: int) -> None:
    assert step_of(checkpoint_name(step)) == step
    assert checkpoint_name(step) >= checkpoint_name(step // 2)


@pytest.mark.parametrize("name", ["step-1.pt", "step-00000000001.pt", "best.pt", ".step-0000000001.pt.tmp", "step-00"])
def test_other_names_have_no_step(name: str) -> None:
    assert step_of(name) is None


def test_what_is_saved_loads_safely_and_mapped(tmp_path: Path) -> None:
    path = save_at(tmp_path, 7)
    state = torch.load(path, weights_only=True, mmap=True)
    assert state["schema"] == "gpu-tenant/checkpoint/v1"
    assert state["step"] == 7
    assert weight_of(state) == 7.0
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["attempts.json", "step-0000000007.pt"]


def test_what_a_save_costs_is_noted_however_soon_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    checkpoints = Checkpointer({"model": model}, directory=str(tmp_path), environ={})
    monkeypatch.setattr(checkpoints._behind, "start", lambda work: work())
    checkpoints.step = 1
    checkpoints.save()
    assert json.loads((tmp_path / "attempts.json").read_text())["save_s"] > 0


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found_unless_it_changes_nothing(tmp_path: Path, at: float, bit: int) -> None:
    path = save_at(tmp_path, 3)
    good = path.read_bytes()
    whole = read_checkpoint(str(path))
    content = bytearray(good)
    content[int(at * len(content))] ^= 1 << bit
    path.write_bytes(content)
    try:
        state = read_checkpoint(str(path))
    except CheckpointDamaged:
        return
    finally:
        path.write_bytes(good)
    assert weight_of(state) == 3.0
    assert {key: state[key] for key in ("step", "epoch", "config", "best")} == {
        key: whole[key] for key in ("step", "epoch", "config", "best")
    }
    assert torch.equal(state["ranks"][0]["rng"]["torch"], whole["ranks"][0]["rng"]["torch"])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kept=st.floats(0, 1, exclude_max=True), zeros=st.booleans())
def test_a_file_cut_short_or_ending_in_zeros_is_damaged(tmp_path: Path, kept: float, zeros: bool) -> None:
    path = save_at(tmp_path, 3)
    content = path.read_bytes()
    cut = int(kept * len(content))
    torn = content[:cut] + (b"\0" * (len(content) - cut) if zeros else b"")
    path.write_bytes(torn)
    assume(torn != content)  # the last bytes of a whole one are zeros, too
    with pytest.raises(CheckpointDamaged):
        read_checkpoint(str(path))


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / checkpoint_name(1)
    if how == "pickle":
        path.write_bytes(pickle.dumps(Evil()))
    else:
        with path.open("w+b") as stream:
            torch.save({"step": 1, "evil": Evil()}, stream)
            seal_archive(stream, {"step": 1})
    found = find_newest([str(tmp_path)])
    assert found.state is None
    assert found.skipped[0].quarantined is (how == "pickle")
    assert not (tmp_path / "executed").exists()


def test_whole_ones_that_this_torch_does_not_load_are_left_and_nothing_is_begun_anew(tmp_path: Path) -> None:
    """Another version of torch may load them: they are no waste, and step 0 would throw their work away."""
    path = tmp_path / checkpoint_name(3)
    with path.open("w+b") as stream:
        torch.save({"step": 3, "evil": Evil()}, stream)
        seal_archive(stream, {"step": 3})
    checkpoints = Checkpointer({"model": torch.nn.Linear(1, 1, bias=False)}, directory=str(tmp_path), environ={})
    with pytest.raises(CheckpointError, match=r"cannot be read now.*unsupported.*mkdir.*Nothing was changed"):
        checkpoints.load_latest()
    assert path.exists()
    save_at(tmp_path, 2)
    assert checkpoints.load_latest() == 2
    assert path.exists()


@pytest.mark.parametrize(
    ("content", "about", "said"),
    [
        ({"step": 1}, None, "it has no manifest"),
        ({"step": 1}, {"schema": "gpu-tenant/checkpoint/v2"}, "not a gpu-tenant/checkpoint/v1"),
        ({"step": 1}, {}, "missing"),
        ([1], {}, "not a gpu-tenant/checkpoint/v1"),
    ],
)
def test_a_torch_file_that_is_no_checkpoint_of_this_version_is_refused(
    tmp_path: Path, content: Any, about: dict[str, Any] | None, said: str
) -> None:
    torch.save(content, tmp_path / "x.pt")
    if about is not None:
        with (tmp_path / "x.pt").open("r+b") as stream:
            seal_archive(stream, about)
    with pytest.raises(CheckpointDamaged, match=said):
        read_checkpoint(str(tmp_path / "x.pt"))


def test_valid_is_decided_without_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_at(tmp_path, 5)

    def load(*_arguments: object, **_options: object) -> None:
        pytest.fail("it was loaded")

    monkeypatch.setattr(torch, "load", load)
    manifest = manifest_of(str(path))
    assert (manifest["step"], manifest["world"]) == (5, 1)
    assert all(len(entry) == 2 for entry in manifest["records"].values())


def test_a_record_taken_out_or_put_in_is_noticed(tmp_path: Path) -> None:
    """Each record agrees with its own checksum, but not with the manifest."""
    path = save_at(tmp_path, 5)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    for change in ({"archive/data/9": b"more"}, {"archive/byteorder": None}, {"archive/version": b"4\n"}):
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in {**records, **change}.items():
                if content is not None:
                    archive.writestr(name, content)
        with pytest.raises(CheckpointDamaged, match="not those of its manifest"):
            manifest_of(str(path))


def test_the_highest_step_wins_over_all_folders_and_the_own_one_at_a_tie(tmp_path: Path) -> None:
    own, seed, other = tmp_path / "own", tmp_path / "seed", tmp_path / "other"
    save_at(own, 5, weight=1.0)
    save_at(seed, 5, weight=2.0)
    save_at(other, 4)
    folders = [str(tmp_path / "not there"), str(own), str(seed), str(other)]
    assert weight_of(find_newest(folders).state) == 1.0
    save_at(other, 6)
    assert find_newest(folders).path == str(other / checkpoint_name(6))


def test_a_damaged_one_moves_to_quarantine_and_the_one_before_it_is_taken(tmp_path: Path) -> None:
    save_at(tmp_path, 1)
    for _time in range(3):
        newest = save_at(tmp_path, 2)
        newest.write_bytes(b"torn")
        found = find_newest([str(tmp_path)])
        assert weight_of(found.state) == 1.0
        assert [(skipped.path, skipped.quarantined) for skipped in found.skipped] == [(str(newest), True)]
    assert sorted(path.name for path in (tmp_path / "quarantine").iterdir()) == [
        *("step-0000000002.pt", "step-0000000002.pt.1", "step-0000000002.pt.2")
    ]


def test_a_checkpoint_under_a_wrong_name_is_damaged(tmp_path: Path) -> None:
    save_at(tmp_path, 2).rename(tmp_path / checkpoint_name(9))
    found = find_newest([str(tmp_path)])
    assert found.state is None
    assert "its name says another step" in found.skipped[0].reason


def test_what_cannot_be_moved_is_skipped_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seed, metrics = tmp_path / "resume", tmp_path / "metrics.jsonl"
    save_at(seed, 1)
    newest = save_at(seed, 2)
    newest.write_bytes(b"torn")

    def read_only(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tenant_checkpoint.os, "makedirs", read_only)
    environ = {"TENANT_RESUME_DIRS": str(seed), "TENANT_METRICS": str(metrics)}
    checkpoints = Checkpointer({"model": torch.nn.Linear(1, 1, bias=False)}, directory=str(tmp_path), environ=environ)
    assert checkpoints.load_latest() == 1
    assert newest.read_bytes() == b"torn"
    line = json.loads(metrics.read_text())
    assert (line["resumed_from"], line["path"]) == (1, str(seed / checkpoint_name(1)))
    assert [(skipped["path"], skipped["quarantined"]) for skipped in line["skipped"]] == [(str(newest), False)]


def test_an_unreadable_one_is_passed_over_but_never_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_at(tmp_path, 1)
    newest = save_at(tmp_path, 2)
    unreadable(monkeypatch, newest)
    found = find_newest([str(tmp_path)])
    assert weight_of(found.state) == 1.0
    assert newest.exists()
    assert not found.skipped[0].damaged


@pytest.mark.parametrize("steps", [(2,), (3,), (2, 3, 4), (9, 10)])
@pytest.mark.parametrize("place", ["own", "durable"])
def test_one_that_may_be_whole_is_neither_overwritten_nor_pruned(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: str,
    steps: tuple[int, ...],
) -> None:
    """It is left for what can load it until the training has come as far by itself; then it is kept in quarantine/."""
    newest, beyond = (save_at(tmp_path / place, step) for step in (2, 7))
    older = save_at(tmp_path / "own", 1)
    content = newest.read_bytes()
    unreadable(monkeypatch, newest, beyond)
    folders = {"directory": str(tmp_path / "own"), "durable_dir": str(tmp_path / "durable")}
    saver = Checkpointer({"model": torch.nn.Linear(1, 1, bias=False)}, keep_last=1, environ={}, **folders)
    assert saver.load_latest() == 1
    assert f"the steps after {older} are trained again, though {beyond}, {newest} may be whole" in caplog.text
    assert newest.exists()
    for saver.step in steps:
        saver.save(wait=True)
        assert saver.durable_step == saver.step
    assert (tmp_path / place / "quarantine" / newest.name).read_bytes() == content
    assert beyond.exists() == (steps[-1] < 7), "there is a newer one only then"
    assert (tmp_path / place / "quarantine" / beyond.name).exists() == (steps[-1] > 7)
    assert "saved anew" in caplog.text
    monkeypatch.undo()
    for folder in ("own", "durable"):
        ours = tmp_path / folder / checkpoint_name(steps[-1])
        assert read_checkpoint(str(ours))["step"] == steps[-1]


def test_one_that_may_be_whole_is_kept_before_a_save_makes_it_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process killed right after the rename knows of it no more, and the next one would prune it."""
    save_at(tmp_path, 1)
    newest = save_at(tmp_path, 2)
    unreadable(monkeypatch, newest)
    saver = Checkpointer({"model": torch.nn.Linear(1, 1, bias=False)}, directory=str(tmp_path), environ={})
    saver.load_latest()
    saver.step = 3
    replace, seen = os.replace, []

    def watched(source: str, target: str) -> None:
        if target.endswith(".pt"):
            seen.append((tmp_path / "quarantine" / newest.name).exists())
        replace(source, target)

    monkeypatch.setattr(tenant_checkpoint.os, "replace", watched)
    saver.save(wait=True)
    assert seen == [True]


def test_torchs_advice_to_load_unsafely_is_never_passed_on(tmp_path: Path) -> None:
    spoilt, evil = tmp_path / "spoilt.pt", tmp_path / "evil.pt"
    spoilt.write_bytes(b"\xff" * 2000)
    torch.save({"class": tmp_path}, evil)
    for path, says in ((spoilt, "Unsupported operand 255"), (evil, "nsupported")):
        with pytest.raises(CheckpointError, match=says) as told:
            tenant_checkpoint._load_tensors(str(path))
        assert "weights_only" not in str(told.value)
        assert "safe_globals" not in str(told.value)
    advice = "Weights only load failed. Re-running `torch.load` with `weights_only` set to `False` will likely succeed"
    assert tenant_checkpoint._what_is_unsafe(RuntimeError(advice)) == "Weights only load failed"


def test_with_nothing_but_unreadable_ones_it_refuses_to_start_at_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreadable(monkeypatch, save_at(tmp_path, 2))
    checkpoints = Checkpointer({"model": torch.nn.Linear(1, 1, bias=False)}, directory=str(tmp_path), environ={})
    with pytest.raises(
        CheckpointError, match=r"no checkpoint can be read now.*Input/output error.*Nothing was changed"
    ):
        checkpoints.load_latest()


def test_too_little_memory_does_not_condemn_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_at(tmp_path, 2)

    def no_memory(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(torch, "load", no_memory)
    with pytest.raises(CheckpointError, match="does not fit into memory"):
        find_newest([str(tmp_path)])
    assert path.exists()


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    write_torch(str(path), {"a": torch.ones(2)})
    before = path.read_bytes()
    (tmp_path / ".model.pt.tmp").symlink_to("/dev/full")
    with pytest.raises((OSError, RuntimeError)):
        write_torch(str(path), {"a": torch.zeros(200_000)})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.pt"]


def test_a_save_on_a_full_disk_says_what_is_safe_and_what_to_do(tmp_path: Path) -> None:
    path = save_at(tmp_path, 1)
    model = torch.nn.Linear(1, 1, bias=False)
    checkpoints = Checkpointer({"model": model}, directory=str(tmp_path), environ={})
    checkpoints.load_latest()
    checkpoints.step = 2
    (tmp_path / ".step-0000000002.pt.tmp").symlink_to("/dev/full")
    with pytest.raises(
        CheckpointError, match=r"cannot save .*step-0000000002.pt.*No space left.*step-0000000001.pt is safe.*Make room"
    ):
        checkpoints.save(wait=True)
    assert weight_of(read_checkpoint(str(path))) == 1.0


def test_json_is_written_whole(tmp_path: Path) -> None:
    write_json(str(tmp_path / "deep" / "m.json"), {"a": 1})
    assert json.loads((tmp_path / "deep" / "m.json").read_text()) == {"a": 1}


def test_leftovers_of_a_killed_save_are_removed_from_the_own_folder_only(tmp_path: Path) -> None:
    own, seed = tmp_path / "own", tmp_path / "seed"
    save_at(own, 1)
    shutil.copytree(own, seed)
    for folder in (own, seed):
        (folder / ".step-0000000002.pt.tmp").write_bytes(b"half")
        (folder / "notes.tmp").write_bytes(b"not ours")
    environ = {"TENANT_CHECKPOINT_DIR": str(own), "TENANT_RESUME_DIRS": str(seed)}
    Checkpointer({"model": torch.nn.Linear(1, 1, bias=False)}, environ=environ).load_latest()
    assert sorted(path.name for path in own.iterdir()) == ["attempts.json", "notes.tmp", "step-0000000001.pt"]
    assert (seed / ".step-0000000002.pt.tmp").exists()


def test_the_supervisor_removes_every_leftover_that_the_helper_may_leave(tmp_path: Path) -> None:
    """They are in the folder of a dead attempt, which the helper of the next one never looks into."""
    names = [
        *(checkpoint_name(7), checkpoint_name(7, sharded=True), tenant_checkpoint._lightning_name(7)),
        *("checkpoint-7", tenant_checkpoint.Attempts.NAME),
    ]
    leftovers = [f".{name}.tmp" for name in names] + [tenant_checkpoint._BROUGHT]
    assert half_saved._HALF.pattern == tenant_checkpoint._LEFTOVER.pattern
    for name in leftovers:
        assert tenant_checkpoint._LEFTOVER.match(name)
        (tmp_path / name).mkdir()
        (tmp_path / name / checkpoint_name(3)).write_bytes(b"whole")
    (tmp_path / "notes.tmp").write_bytes(b"not ours")
    assert half_saved.remove(str(tmp_path)) == len(leftovers)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.tmp"]
