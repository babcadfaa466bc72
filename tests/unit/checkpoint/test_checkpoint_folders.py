# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Checkpoints that are folders: valid by their manifest, copied, pruned; and the callbacks for other people's loops."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tenant_checkpoint import (
    CheckpointDamaged,
    Checkpointer,
    CheckpointError,
    ShuffledBatches,
    _LightningHooks,
    _TrainerHooks,
    archive_manifest,
    copy_durably,
    folder_manifest,
    lightning_callback,
    manifest_of,
    seal_folder,
    trainer_callback,
)


def folder_of(place: Path, name: str = "step-0000000004.dcp", step: int = 4) -> Path:
    folder = place / name
    (folder / "deep").mkdir(parents=True)
    (folder / "__0_0.distcp").write_bytes(b"pieces of rank 0")
    (folder / "__1_0.distcp").write_bytes(b"pieces of rank 1")
    (folder / "deep" / ".metadata").write_bytes(b"index")
    seal_folder(str(folder), {"step": step, "world": 2})
    return folder


def test_a_sealed_folder_is_valid_and_says_what_it_is(tmp_path: Path) -> None:
    manifest = manifest_of(str(folder_of(tmp_path)))
    assert (manifest["step"], manifest["world"]) == (4, 2)
    assert [entry["path"] for entry in manifest["files"]] == ["__0_0.distcp", "__1_0.distcp", "deep/.metadata"]


@pytest.mark.parametrize("name", ["__0_0.distcp", "__1_0.distcp", "deep/.metadata"])
@pytest.mark.parametrize("damage", ["missing", "shorter", "changed"])
def test_any_file_missing_or_changed_is_found_without_loading(tmp_path: Path, name: str, damage: str) -> None:
    folder = folder_of(tmp_path)
    content = (folder / name).read_bytes()
    if damage == "missing":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content[:-1] if damage == "shorter" else content[:-1] + b"X")
    with pytest.raises(CheckpointDamaged, match=r"missing|has changed"):
        folder_manifest(str(folder))


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"schema": "gpu-tenant/checkpoint/v1"}', '{"schema": "other/v1"}'])
def test_a_folder_with_a_spoilt_or_without_a_manifest_is_damaged(tmp_path: Path, text: str) -> None:
    folder = folder_of(tmp_path)
    (folder / "manifest.json").write_text(text)
    with pytest.raises(CheckpointDamaged):
        folder_manifest(str(folder))
    (folder / "manifest.json").unlink()
    with pytest.raises(CheckpointDamaged, match="its save was not finished"):
        folder_manifest(str(folder))


def test_the_ranks_divide_the_reading_and_together_read_all(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "__1_0.distcp").write_bytes(b"something else!!")
    noticed = []
    for rank in range(3):
        try:
            folder_manifest(str(folder), rank, 3)
        except CheckpointDamaged:
            noticed.append(rank)
    assert len(noticed) == 1


def test_a_folder_is_copied_durably_whole(tmp_path: Path) -> None:
    folder, durable = folder_of(tmp_path / "own"), tmp_path / "durable"
    (durable / ".step-0000000004.dcp.tmp").mkdir(parents=True)
    (durable / ".step-0000000004.dcp.tmp" / "left").write_text("by a killed copy")
    for _time in range(2):
        target = copy_durably(str(folder), str(durable))
        assert folder_manifest(target) == folder_manifest(str(folder))
    assert [path.name for path in durable.iterdir()] == [folder.name]


def test_checkpoints_of_the_other_layout_never_make_it_start_at_0(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    Checkpointer({"model": model}, directory=str(tmp_path / "a"), environ={}).save(wait=True)
    with pytest.raises(CheckpointError, match=r"was saved in one file, this run saves sharded.*sharded=False"):
        Checkpointer({"model": model}, directory=str(tmp_path / "a"), sharded=True, environ={}).load_latest()
    folder_of(tmp_path / "b")
    with pytest.raises(CheckpointError, match=r"was saved sharded, this run saves in one file.*sharded=True"):
        Checkpointer({"model": model}, directory=str(tmp_path / "b"), environ={}).load_latest()


# ------------------------------------------------------------------------------------------ callbacks


def trainer_hooks(folder: Path, **options: Any) -> Any:
    options.setdefault("environ", {"TENANT_MU_S": "1e9"})
    return _TrainerHooks(str(folder), longest_interval_s=1e9, **options)


def trainer_saves(folder: Path, step: int, hooks: Any, best: str | None = None) -> None:
    """What the Trainer does at ``should_save``: it writes a folder and tells the callbacks."""
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"):
        (path / name).write_text(f"{name} of {step}")
    hooks.on_save(None, SimpleNamespace(global_step=step, best_model_checkpoint=best), None)


def test_the_trainer_is_told_to_save_at_the_first_step_and_its_folder_is_sealed(tmp_path: Path) -> None:
    hooks, arguments = trainer_hooks(tmp_path), SimpleNamespace(save_total_limit=1)
    state, control = SimpleNamespace(global_step=1), SimpleNamespace(should_save=False, should_training_stop=False)
    assert hooks.load_latest() is None
    hooks.on_train_begin(arguments, state, control, model=None)
    assert arguments.save_total_limit is None, "it would remove the old one before the new one is known to be whole"
    hooks.on_step_end(arguments, state, control)
    assert (control.should_save, control.should_training_stop) == (True, False)
    trainer_saves(tmp_path, 1, hooks)
    assert trainer_hooks(tmp_path).load_latest() == str(tmp_path / "checkpoint-1")
    control.should_save = False
    hooks.on_step_end(arguments, state, control)
    assert not control.should_save, "not due again"
    os.kill(os.getpid(), signal.SIGTERM)
    hooks.on_step_end(arguments, state, control)
    assert (control.should_save, control.should_training_stop, hooks.should_stop) == (True, True, True)


def test_a_trainer_folder_that_was_not_finished_is_passed_over_and_old_ones_go_only_after_the_new_is_whole(
    tmp_path: Path,
) -> None:
    hooks = trainer_hooks(tmp_path, keep_last=2)
    hooks.on_train_begin(SimpleNamespace(save_total_limit=None), None, None)
    for step in (5, 10, 15, 20):
        trainer_saves(tmp_path, step, hooks, best=str(tmp_path / "checkpoint-5"))
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == [
        *("checkpoint-15", "checkpoint-20", "checkpoint-5")
    ]
    shutil.copytree(tmp_path / "checkpoint-20", tmp_path / "checkpoint-25")
    (tmp_path / "checkpoint-25" / "manifest.json").unlink()
    (tmp_path / "checkpoint-20" / "optimizer.pt").write_text("torn")
    assert trainer_hooks(tmp_path).load_latest() == str(tmp_path / "checkpoint-15")
    assert sorted(path.name for path in (tmp_path / "quarantine").iterdir()) == ["checkpoint-20", "checkpoint-25"]


class FakeLightning:
    """The part of Lightning's Trainer that the callback touches, with its real names."""

    def __init__(self, sharded: bool) -> None:
        self.global_step, self.should_stop, self.sharded = 0, False, sharded

    def save_checkpoint(self, filepath: str, weights_only: bool | None = None, storage_options: Any = None) -> None:
        if not self.sharded:
            torch.save({"global_step": self.global_step, "state_dict": {"w": torch.ones(3)}}, filepath)
            return
        Path(filepath).mkdir()
        (Path(filepath) / "__0_0.distcp").write_bytes(b"pieces")


@pytest.mark.parametrize("sharded", [False, True])
def test_lightning_saves_under_another_name_and_the_callback_makes_it_whole(tmp_path: Path, sharded: bool) -> None:
    batches = ShuffledBatches(40, 4)
    hooks = _LightningHooks(str(tmp_path), batches, environ={"TENANT_MU_S": "1e9"}, longest_interval_s=1e9)
    trainer = FakeLightning(sharded)
    hooks.on_train_start(trainer, None)
    for number in range(6):
        trainer.global_step = 1 + number // 2  # two batches make a step
        hooks.on_train_batch_end(trainer, None, None, None, number)
    assert [path.name for path in tmp_path.glob("*step*")] == ["step-0000000001.ckpt"]
    path = hooks.load_latest()
    assert path is not None
    assert manifest_of(path)["step"] == 1
    if not sharded:
        assert torch.load(path, weights_only=True)["global_step"] == 1
        assert archive_manifest(path)["step"] == 1
    state = json.loads(json.dumps(hooks.state_dict()["batches"]))
    assert state["batch"] == 6
    os.kill(os.getpid(), signal.SIGTERM)
    trainer.global_step = 9
    hooks.on_train_batch_end(trainer, None, None, None, 6)
    assert trainer.should_stop
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-0000000001.ckpt", "step-0000000009.ckpt"]


def test_neither_is_imported_before_it_is_asked_for() -> None:
    assert "transformers" not in sys.modules
    assert "lightning" not in sys.modules


@pytest.mark.skipif(importlib.util.find_spec("transformers") is not None, reason="transformers is installed")
def test_without_transformers_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="needs the package transformers"):
        trainer_callback(str(tmp_path))


@pytest.mark.skipif(importlib.util.find_spec("lightning") is not None, reason="lightning is installed")
def test_without_lightning_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="needs the package lightning"):
        lightning_callback(str(tmp_path))
