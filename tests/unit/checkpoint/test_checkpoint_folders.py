# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Checkpoints that are folders: valid by their manifest, copied, pruned; and the callbacks for other people's loops."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tenant_checkpoint
import torch
from regression_model import Regression
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
    hooks, arguments = trainer_hooks(tmp_path), SimpleNamespace(save_total_limit=1, output_dir=str(tmp_path))
    state, control = SimpleNamespace(global_step=1), SimpleNamespace(should_save=False, should_training_stop=False)
    assert hooks.load_latest() is None
    state.best_model_checkpoint = None
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
    state = SimpleNamespace(best_model_checkpoint=None)
    hooks.on_train_begin(SimpleNamespace(save_total_limit=None, output_dir=str(tmp_path)), state, None)
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


class Box:
    """Attempts of a box as the supervisor lays them out: each with a folder of its own, and one on a durable mount."""

    def __init__(self, folder: Path, durable: Path | None = None) -> None:
        self.folder, self.durable = folder, durable

    def checkpoints(self, number: int) -> Path:
        return self.folder / f"a{number}" / "out" / "checkpoints"

    def environ(self, number: int) -> dict[str, str]:
        earlier = [str(self.checkpoints(before)) for before in range(number - 1, 0, -1)]
        found = {
            "TENANT_CHECKPOINT_DIR": str(self.checkpoints(number)),
            "TENANT_OUTPUT_DIR": str(self.checkpoints(number).parent),
            "TENANT_MU_S": "1e9",
        }
        if self.durable is not None:
            found["TENANT_DURABLE_CHECKPOINT_DIR"] = str(self.durable / f"a{number}")
            earlier += [str(self.durable / f"a{before}") for before in range(number - 1, 0, -1)]
        return {**found, "TENANT_RESUME_DIRS": os.pathsep.join(earlier)}


def trained(hooks: Any, output_dir: Path, steps: tuple[int, ...], best: str | None = None) -> Any:
    """What the Trainer does from its first step to a kill: it saves below the ``output_dir`` of its arguments."""
    arguments = SimpleNamespace(save_total_limit=None, output_dir=str(output_dir))
    hooks.on_train_begin(arguments, SimpleNamespace(best_model_checkpoint=best), None)
    for step in steps:
        trainer_saves(Path(arguments.output_dir), step, hooks, best)
    return arguments


def test_the_best_of_an_earlier_attempt_stays_the_trainers_best(tmp_path: Path) -> None:
    box = Box(tmp_path)
    first, second = (box.checkpoints(number) for number in (1, 2))
    trained(trainer_hooks(first, environ=box.environ(1)), first, (5, 10), str(first / "checkpoint-5"))
    hooks = trainer_hooks(second, environ=box.environ(2))
    # The state comes from trainer_state.json and may name a box that is gone.
    state = SimpleNamespace(global_step=15, best_model_checkpoint="/gone/checkpoint-5", best_metric=0.9)
    hooks.on_train_begin(SimpleNamespace(save_total_limit=None, output_dir="results"), state, None)
    assert state.best_model_checkpoint == str(first / "checkpoint-5")
    assert not list(second.glob("checkpoint-*")), "it has not saved anything yet"
    (second / "checkpoint-15").mkdir()
    (second / "checkpoint-15" / "optimizer.pt").write_text("of 15")
    hooks.on_save(None, state, None)
    assert state.best_model_checkpoint == str(second / "checkpoint-5")
    assert manifest_of(str(second / "checkpoint-5"))["step"] == 5
    assert manifest_of(str(second / "checkpoint-15"))["best"] == 5
    state.best_model_checkpoint = "/gone/checkpoint-4"
    trainer_hooks(second, environ=box.environ(2)).on_train_begin(SimpleNamespace(output_dir="results"), state, None)
    assert (state.best_model_checkpoint, state.best_metric) == (None, None)


@pytest.mark.parametrize("said", ["out/hf", "results"])
def test_the_trainer_goes_on_in_the_next_attempt_wherever_its_output_dir_points(
    tmp_path: Path, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt has its own output folder, and the folder of the code belongs to no attempt at all."""
    monkeypatch.chdir(tmp_path)
    box = Box(tmp_path / "box")
    for number in (1, 2):
        place = box.checkpoints(number).parent / "hf" if said == "out/hf" else Path(said)
        hooks = _TrainerHooks(str(place), environ=box.environ(number), longest_interval_s=1e9)
        expected = None if number == 1 else str(box.checkpoints(1) / "checkpoint-20")
        assert hooks.load_latest() == expected
        trained(hooks, place, (10 * number, 20 * number))
    assert sorted(path.name for path in box.checkpoints(2).glob("checkpoint-*")) == ["checkpoint-20", "checkpoint-40"]


def test_what_the_script_writes_after_the_training_stays_where_it_has_it(tmp_path: Path) -> None:
    hooks = _TrainerHooks("results", environ=Box(tmp_path).environ(1), longest_interval_s=1e9)
    arguments = trained(hooks, Path("results"), (5,))
    hooks.on_train_end(arguments, None, None)
    assert arguments.output_dir == "results", "trainer.save_model() writes there"


def test_the_loss_of_an_attempt_is_counted_by_the_callback_of_the_next(tmp_path: Path) -> None:
    box = Box(tmp_path)
    for number in (1, 2, 3):
        hooks = _TrainerHooks(environ=box.environ(number), longest_interval_s=1e9)
        trained(hooks, Path("results"), (number,))
        assert hooks._pace is not None
        assert hooks._pace.cadence.losses.seen == number - 1


def trainer_is_stopped(hooks: Any, step: int) -> None:
    """Two steps of the Trainer, SIGTERM in the second one."""
    control = SimpleNamespace(should_save=False, should_training_stop=False, should_log=False)
    state = SimpleNamespace(global_step=step, max_steps=99, epoch=0.5, best_model_checkpoint=None)
    arguments = SimpleNamespace(save_total_limit=None, output_dir="results")
    hooks.on_train_begin(arguments, state, control)
    for state.global_step in (step + 1, step + 2):
        if state.global_step == step + 2:
            os.kill(os.getpid(), signal.SIGTERM)
        control.should_save = False
        hooks.on_step_end(arguments, state, control)
        if control.should_save:
            trainer_saves(Path(arguments.output_dir), state.global_step, hooks)
    assert control.should_training_stop


def lightning_is_stopped(hooks: Any, step: int) -> None:
    trainer = FakeLightning(sharded=False)
    trainer.global_step = step
    hooks.on_train_start(trainer, None)
    for trainer.global_step in (step + 1, step + 2):
        if trainer.global_step == step + 2:
            os.kill(os.getpid(), signal.SIGTERM)
        hooks.on_train_batch_end(trainer, None, None, None, 0)
    assert trainer.should_stop


@pytest.mark.parametrize(
    ("kind", "is_stopped"), [(_TrainerHooks, trainer_is_stopped), (_LightningHooks, lightning_is_stopped)]
)
def test_a_stop_with_all_saved_is_no_loss_for_the_callbacks_either(
    tmp_path: Path, kind: Any, is_stopped: Callable[[Any, int], None]
) -> None:
    box = Box(tmp_path)

    def hooks_of(number: int) -> Any:
        hooks = kind(environ=box.environ(number), longest_interval_s=1e9)
        latest = hooks.load_latest()
        assert (manifest_of(latest)["step"] if latest else 0) == 2 * (number - 1)
        return hooks

    for number in (1, 2, 3):
        hooks = hooks_of(number)
        is_stopped(hooks, 2 * (number - 1))
        assert hooks._pace.cadence.losses.seen == 0
    for path in tmp_path.rglob("attempts.json"):
        path.unlink()
    hooks = hooks_of(4)
    hooks._begin()
    assert hooks._pace.cadence.losses.seen == 0, "the checkpoint says it too, on a box that has nothing else"
    assert hooks._pace.cadence.losses.exposed_s > 0.0, "and how long there was none"
    hooks = hooks_of(4)
    hooks._begin()
    assert hooks._pace.cadence.losses.seen == 1, "the one before just vanished"


@pytest.mark.parametrize("kind", [_TrainerHooks, _LightningHooks])
def test_what_a_callback_could_not_read_is_kept_when_its_step_is_saved_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    is_stopped = trainer_is_stopped if kind is _TrainerHooks else lightning_is_stopped
    is_stopped(kind(str(tmp_path), environ={}, longest_interval_s=1e9, keep_last=1), 0)
    (newest,) = [path for path in tmp_path.iterdir() if kind.pattern.match(path.name)]
    older = newest.with_name(newest.name.replace("2", "1"))
    shutil.copytree(newest, older) if newest.is_dir() else shutil.copy(newest, older)
    left = newest.stat().st_ino

    def bad_disk(path: str) -> dict[str, Any]:
        if path == str(newest):
            raise OSError(5, "Input/output error")
        return {"step": 1}

    monkeypatch.setattr(tenant_checkpoint, "manifest_of", bad_disk)
    hooks = kind(str(tmp_path), environ={}, longest_interval_s=1e9, keep_last=1)
    assert hooks.load_latest() == str(older)
    assert newest.exists()
    is_stopped(hooks, 1)
    assert (tmp_path / "quarantine" / newest.name).stat().st_ino == left
    assert newest.with_name(newest.name.replace("2", "3")).exists()


def test_the_trainer_goes_on_from_the_durable_mount_when_the_disk_of_the_box_is_gone(tmp_path: Path) -> None:
    box = Box(tmp_path / "box", tmp_path / "mount")
    trained(_TrainerHooks(environ=box.environ(1), keep_last=2, longest_interval_s=1e9), Path("results"), (5, 10, 15))
    assert sorted(path.name for path in (tmp_path / "mount" / "a1").iterdir()) == ["checkpoint-10", "checkpoint-15"]
    shutil.rmtree(box.checkpoints(1))
    hooks = _TrainerHooks(environ=box.environ(2), longest_interval_s=1e9)
    assert hooks.load_latest() == str(tmp_path / "mount" / "a1" / "checkpoint-15")


def test_a_durable_mount_that_fails_does_not_end_the_trainer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "mount").write_text("no folder")
    box = Box(tmp_path / "box", tmp_path / "mount")
    trained(_TrainerHooks(environ=box.environ(1), longest_interval_s=1e9), Path("results"), (5,))
    assert (box.checkpoints(1) / "checkpoint-5" / "manifest.json").exists()
    assert "its copy to" in caplog.text


class FakeLightning:
    """The part of Lightning's Trainer that the callback touches, with its real names."""

    def __init__(self, sharded: bool) -> None:
        self.global_step, self.should_stop, self.sharded = 0, False, sharded
        self.current_epoch, self.is_last_batch = 0, False
        self.max_steps, self.estimated_stepping_batches, self.log_every_n_steps = -1, 12, 50
        self.callback_metrics: dict[str, Any] = {}
        self.sanity_checking, self.state = False, SimpleNamespace(fn="fit")

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


def test_lightning_goes_on_in_the_next_attempt_and_on_the_durable_mount(tmp_path: Path) -> None:
    box = Box(tmp_path / "box", tmp_path / "mount")
    for number in (1, 2):
        hooks = _LightningHooks("checkpoints", environ=box.environ(number), longest_interval_s=1e-6)
        expected = None if number == 1 else str(box.checkpoints(1) / "step-0000000003.ckpt")
        assert hooks.load_latest() == expected
        trainer = FakeLightning(sharded=False)
        hooks.on_train_start(trainer, None)
        trainer.global_step = 3 * number
        hooks.on_train_batch_end(trainer, None, None, None, 0)
        shutil.rmtree(box.checkpoints(2), ignore_errors=True)
    assert hooks.load_latest() == str(tmp_path / "mount" / "a2" / "step-0000000006.ckpt")


def test_neither_is_imported_before_it_is_asked_for() -> None:
    code = "import sys, tenant_checkpoint; sys.exit(bool({'transformers', 'lightning'} & set(sys.modules)))"
    environ = {**os.environ, "PYTHONPATH": str(Path(tenant_checkpoint.__file__).parent)}
    assert subprocess.run([sys.executable, "-c", code], env=environ, timeout=600, check=False).returncode == 0


@pytest.mark.parametrize(
    ("package", "modules", "callback"),
    [
        ("transformers", ["transformers"], trainer_callback),
        ("lightning", ["lightning.pytorch", "pytorch_lightning"], lightning_callback),
    ],
)
def test_without_the_package_it_says_what_is_missing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    modules: list[str],
    callback: Callable[[str], object],
) -> None:
    for name in modules:
        # How Python is told that there is no such module.
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(CheckpointError, match=f"needs the package {package}"):
        callback(str(tmp_path))


class Killed(Exception):
    """The box is gone."""


def test_the_real_trainer_goes_on_in_its_next_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    box = Box(tmp_path / "box")

    class Kills(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
            control.should_save = True

        def on_save(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
            if state.global_step == 3 and attempt == 1:
                raise Killed

    def train() -> tuple[Any, str | None, str]:
        for name, value in box.environ(attempt).items():
            monkeypatch.setenv(name, value)
        place = str(box.checkpoints(attempt).parent / "hf")
        data = [{"x": torch.arange(4.0) + item, "labels": torch.tensor(0.5)} for item in range(12)]
        arguments = transformers.TrainingArguments(
            place, num_train_epochs=1, per_device_train_batch_size=2, save_strategy="no", logging_strategy="no",
            report_to=[], use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        callback = trainer_callback(arguments.output_dir, longest_interval_s=1e9)
        trainer = transformers.Trainer(Regression(), arguments, train_dataset=data, callbacks=[callback, Kills()])
        latest = callback.load_latest()
        trainer.train(resume_from_checkpoint=latest)
        return trainer, latest, place

    attempt = 1
    with pytest.raises(Killed):
        train()
    attempt = 2
    trainer, latest, place = train()
    assert latest == str(box.checkpoints(1) / "checkpoint-3")
    assert trainer.state.global_step == 6
    assert (box.checkpoints(2) / "checkpoint-6" / "manifest.json").exists()
    trainer.save_model()
    assert list(Path(place).glob("model.safetensors")), "a model saved afterwards lies where the script has it"


def train_and_evaluate(place: Path, strategy: str, losses: list[float] | None = None, epochs: int = 2) -> str | None:
    """What the real Trainer goes on from, with four steps to an epoch.

    :param losses: what its evaluations in train find, instead of what is so.
    """
    import transformers

    class Finds(transformers.Trainer):  # type: ignore[misc]
        def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
            if losses:
                metrics["eval_loss"] = losses.pop(0)
            return bool(super()._determine_best_metric(metrics, trial))

    data = [{"x": torch.arange(4.0), "labels": torch.tensor(9.0)} for _item in range(16)]
    arguments = transformers.TrainingArguments(
        str(place), num_train_epochs=epochs, per_device_train_batch_size=4, save_strategy=strategy, save_steps=4,
        eval_strategy="epoch", metric_for_best_model="loss", logging_strategy="no", report_to=[], use_cpu=True,
        disable_tqdm=True,
    )  # fmt: skip
    callback = trainer_callback(arguments.output_dir, environ={}, longest_interval_s=1e9)
    trainer = Finds(Regression(), arguments, train_dataset=data, eval_dataset=data, callbacks=[callback])
    trainer.evaluate()
    latest = callback.load_latest()
    trainer.train(resume_from_checkpoint=latest)
    return latest


def make_unreadable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def manifest(asked: str) -> dict[str, Any]:
        if asked == str(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return manifest_of(asked)

    monkeypatch.setattr(tenant_checkpoint, "manifest_of", manifest)


@pytest.mark.parametrize("strategy", ["steps", "epoch", "best"])
def test_the_real_trainer_saves_into_no_folder_that_was_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    """It may be whole: a save of its step makes another folder, and this one is kept as it is."""
    train_and_evaluate(tmp_path, strategy)
    newest = tmp_path / "checkpoint-8"
    inode = os.stat(newest).st_ino
    make_unreadable(newest, monkeypatch)
    assert train_and_evaluate(tmp_path, strategy) == str(tmp_path / "checkpoint-4")
    assert os.stat(tmp_path / "quarantine" / "checkpoint-8").st_ino == inode
    assert (newest / "manifest.json").exists()


@pytest.mark.parametrize("last_loss", [9.0, 0.5])
def test_an_evaluation_that_is_no_best_puts_no_earlier_checkpoint_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_loss: float
) -> None:
    """No save follows it: killed before one, the next process goes on from what was passed over, if it can read it."""
    train_and_evaluate(tmp_path, "best", [3.0, 2.0])
    (tmp_path / "checkpoint-8").rename(tmp_path / "checkpoint-10")
    make_unreadable(tmp_path / "checkpoint-10", monkeypatch)
    latest = train_and_evaluate(tmp_path, "best", [9.0, last_loss], epochs=3)
    assert latest == str(tmp_path / "checkpoint-4")
    is_best = last_loss < 3.0
    assert (tmp_path / "checkpoint-12").exists() == is_best
    assert (tmp_path / "checkpoint-10").exists() != is_best
    assert (tmp_path / "quarantine" / "checkpoint-10").exists() == is_best, "a save of a later step would remove it"


def test_the_real_lightning_goes_on_in_its_next_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lightning.pytorch as lightning

    box = Box(tmp_path / "box")

    class Model(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Linear(4, 1)

        def training_step(self, batch: Any, index: int) -> Any:
            if attempt == 1 and index == 3:
                raise Killed
            return self.inner(batch).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    def train() -> tuple[Any, str | None]:
        for name, value in box.environ(attempt).items():
            monkeypatch.setenv(name, value)
        batches = ShuffledBatches(12, 2)
        callback = lightning_callback("checkpoints", batches=batches, longest_interval_s=1e-6)
        trainer = lightning.Trainer(
            max_epochs=1, accelerator="cpu", callbacks=[callback], enable_checkpointing=False, logger=False,
            enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        )  # fmt: skip
        loader = torch.utils.data.DataLoader([torch.ones(4) * item for item in range(12)], batch_sampler=batches)
        latest = callback.load_latest()
        trainer.fit(Model(), loader, ckpt_path=latest)
        return trainer, latest

    attempt = 1
    with pytest.raises(Killed):
        train()
    attempt = 2
    trainer, latest = train()
    assert latest is not None
    assert Path(latest).parent == box.checkpoints(1)
    assert trainer.global_step > int(Path(latest).stem[len("step-") :])
