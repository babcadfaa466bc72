# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the callbacks for other people's loops tell the supervisor: steps, losses, where they went on, what is safe."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ansible_collections.tenant.gpu.plugins.module_utils.box.drill_verdict import judge
from ansible_collections.tenant.gpu.plugins.module_utils.box.progress import parse_lines, read_progress
from regression_model import Regression
from tenant_checkpoint import ShuffledBatches, _LightningHooks, _TrainerHooks, lightning_callback, trainer_callback
from test_checkpoint_folders import Box, FakeLightning, Killed

Lines = list[dict[str, Any]]
Environ = dict[str, str]
Train = Callable[[Environ, bool], Lines]


def told(environ: Environ) -> Lines:
    return parse_lines(Path(environ["TENANT_METRICS"]).read_bytes())


def environ_of(folder: Path, number: int = 1, drilled: bool = False) -> Environ:
    found = {**Box(folder).environ(number), "TENANT_METRICS": str(folder / f"metrics-{number}.jsonl")}
    return {**found, "TENANT_DRILL": "1"} if drilled else found


# ------------------------------------------------------------------------------------------ Hugging Face


class FakeTrainer:
    """The calls that the Trainer of transformers makes at each step, in their order; it logs at every ``logs``-th."""

    def __init__(self, hooks: Any, folder: Path, logs: int = 1, step: int = 0) -> None:
        self.hooks, self.logs = hooks, logs
        self.arguments = SimpleNamespace(save_total_limit=None, output_dir=str(folder))
        self.state = SimpleNamespace(global_step=step, max_steps=40, epoch=step / 10, best_model_checkpoint=None)
        self.control = SimpleNamespace(should_save=False, should_training_stop=False, should_log=False)
        hooks.on_train_begin(self.arguments, self.state, self.control)

    def steps(self, count: int, loss: float = 2.0) -> None:
        for _step in range(count):
            self.state.global_step += 1
            self.state.epoch = self.state.global_step / 10
            self.control.should_save, self.control.should_log = False, self.state.global_step % self.logs == 0
            self.hooks.on_step_end(self.arguments, self.state, self.control)
            if self.control.should_log:
                logs = {"loss": loss / self.state.global_step, "learning_rate": 0.1}
                self.hooks.on_log(self.arguments, self.state, self.control, logs=logs)
            if self.control.should_save:
                self.save()

    def save(self) -> None:
        path = Path(self.arguments.output_dir) / f"checkpoint-{self.state.global_step}"
        path.mkdir(parents=True)
        (path / "optimizer.pt").write_text("moments")
        self.hooks.on_save(self.arguments, self.state, self.control)


def test_each_step_of_the_trainer_is_a_line_with_its_loss_where_it_is_known(tmp_path: Path) -> None:
    environ = environ_of(tmp_path)
    trainer = FakeTrainer(_TrainerHooks(environ=environ, longest_interval_s=1e9), tmp_path, logs=4)
    trainer.steps(11)
    lines = told(environ)
    assert [line["step"] for line in lines] == list(range(1, 12)), "one line a step, and none held back"
    assert {line["step"]: line["loss"] for line in lines if "loss" in line} == {4: 0.5, 8: 0.25}
    assert {line["steps"] for line in lines} == {40}
    assert [line["epoch"] for line in lines][-3:] == [0, 1, 1]
    assert "resumed_from" not in lines[0]
    # Saved after the first step, which the next line tells, with what is safe.
    numbers = lines[1]["checkpoint"]
    assert numbers["path"] == str(Box(tmp_path).checkpoints(1) / "checkpoint-1")
    assert numbers["interval_s"] > 0
    found = read_progress(environ["TENANT_METRICS"])
    assert (found.step, found.steps, found.loss) == (11, 40, 0.25)
    assert found.rate is not None


def test_a_loss_that_comes_after_its_line_has_one_of_its_own(tmp_path: Path) -> None:
    environ = environ_of(tmp_path)
    trainer = FakeTrainer(_TrainerHooks(environ=environ, longest_interval_s=1e9), tmp_path, logs=100)
    trainer.steps(2)
    trainer.hooks.on_log(None, trainer.state, None, logs={"eval_loss": 9.0})
    trainer.hooks.on_log(None, trainer.state, None, logs={"loss": math.nan})
    assert [(line["step"], line.get("loss", "none")) for line in told(environ)] == [(1, "none"), (2, "none"), (2, None)]


def test_a_held_line_is_told_at_the_end(tmp_path: Path) -> None:
    environ = environ_of(tmp_path)
    trainer = FakeTrainer(_TrainerHooks(environ=environ, longest_interval_s=1e9), tmp_path)
    trainer.control.should_log, trainer.state.global_step = True, 1
    trainer.hooks.on_step_end(trainer.arguments, trainer.state, trainer.control)
    assert not Path(environ["TENANT_METRICS"]).exists(), "its loss comes in a moment"
    trainer.hooks.on_train_end(trainer.arguments, trainer.state, trainer.control)
    assert [line["step"] for line in told(environ)] == [1]


def test_in_a_drill_the_trainer_logs_each_step(tmp_path: Path) -> None:
    environ = environ_of(tmp_path, drilled=True)
    FakeTrainer(_TrainerHooks(environ=environ, longest_interval_s=1e9), tmp_path, logs=100).steps(3)
    assert [(line["step"], line["loss"]) for line in told(environ)] == [(1, 2.0), (2, 1.0), (3, 2 / 3)]


@pytest.mark.parametrize("step", [1, 7, 0])
def test_what_a_resume_found_is_told_by_the_trainers_own_step(tmp_path: Path, step: int) -> None:
    """A script may load something else than was found, or nothing at all."""
    first, second = environ_of(tmp_path, 1), environ_of(tmp_path, 2)
    FakeTrainer(_TrainerHooks(environ=first, longest_interval_s=1e9), tmp_path).steps(3)
    hooks = _TrainerHooks(environ=second, longest_interval_s=1e9)
    newest = hooks.load_latest()
    assert newest == str(Box(tmp_path).checkpoints(1) / "checkpoint-1")
    FakeTrainer(hooks, tmp_path, step=step).steps(1)
    lines = told(second)
    assert lines[-1]["step"] == step + 1
    path = newest if step == 1 else ""
    assert lines[:-1] == ([{"resumed_from": step, "path": path, "deterministic": False}] if step else [])


def test_the_time_that_was_trained_goes_on_in_the_next_attempt(tmp_path: Path) -> None:
    first = environ_of(tmp_path, 1)
    trainer = FakeTrainer(_TrainerHooks(environ=first, longest_interval_s=1e9), tmp_path)
    trainer.hooks._lines._started -= 1000.0
    trainer.steps(1)
    second = environ_of(tmp_path, 2)
    hooks = _TrainerHooks(environ=second, longest_interval_s=1e9)
    hooks.load_latest()
    FakeTrainer(hooks, tmp_path, step=1).steps(1)
    assert told(second)[-1]["trained_s"] >= 1000.0


@pytest.mark.parametrize("spoilt", ["no folder", "a state that is another", "a loss that is none"])
def test_metrics_never_stop_the_trainer(tmp_path: Path, spoilt: str, caplog: pytest.LogCaptureFixture) -> None:
    environ = environ_of(tmp_path)
    if spoilt == "no folder":
        environ["TENANT_METRICS"] = str(tmp_path / "gone" / "metrics.jsonl")
    trainer = FakeTrainer(_TrainerHooks(environ=environ, longest_interval_s=1e9), tmp_path)
    if spoilt == "a state that is another":
        del trainer.state.max_steps
    if spoilt == "a loss that is none":
        trainer.hooks.on_log(None, trainer.state, None, logs={"loss": object()})
    trainer.steps(3)
    assert (Box(tmp_path).checkpoints(1) / "checkpoint-1" / "manifest.json").exists()
    assert caplog.text.count("training goes on without them") == 1


@pytest.mark.parametrize("broken", [False, True])
def test_a_durable_copy_is_told_or_its_failure(tmp_path: Path, broken: bool) -> None:
    mount = tmp_path / "mount"
    if broken:
        mount.write_text("no folder")
    environ = {**environ_of(tmp_path), "TENANT_DURABLE_CHECKPOINT_DIR": str(mount)}
    FakeTrainer(_TrainerHooks(environ=environ, longest_interval_s=1e9), tmp_path).steps(2)
    lines = told(environ)
    assert any("durable_copy_failed" in line for line in lines) == broken
    assert lines[-1]["checkpoint"]["durable_step"] == (None if broken else 1)


# ------------------------------------------------------------------------------------------ Lightning


def lightning_steps(hooks: Any, trainer: FakeLightning, steps: range, outputs: Callable[[int], Any]) -> None:
    hooks.on_train_start(trainer, None)
    for step in steps:
        trainer.global_step, trainer.current_epoch, trainer.is_last_batch = step, (step - 1) // 5, step % 5 == 0
        hooks.on_train_batch_end(trainer, None, outputs(step), None, step)


def test_each_step_of_lightning_is_a_line(tmp_path: Path) -> None:
    environ = environ_of(tmp_path)
    hooks = _LightningHooks(environ=environ, longest_interval_s=1e9)
    lightning_steps(hooks, FakeLightning(False), range(1, 8), lambda step: {"loss": torch.tensor(1.0 / step)})
    lines = told(environ)
    assert [(line["step"], line["epoch"]) for line in lines] == [(1, 0), (2, 0), (3, 0), (4, 0), (5, 1), (6, 1), (7, 1)]
    assert {line["steps"] for line in lines} == {12}
    assert [line["loss"] for line in lines] == pytest.approx([1 / step for step in range(1, 8)])
    assert lines[1]["checkpoint"]["path"].endswith("step-0000000001.ckpt")


def test_gradients_that_are_accumulated_are_no_step(tmp_path: Path) -> None:
    environ = environ_of(tmp_path)
    hooks, trainer = _LightningHooks(environ=environ, longest_interval_s=1e9), FakeLightning(False)
    hooks.on_train_start(trainer, None)
    for number in range(6):
        trainer.global_step = (number + 1) // 2
        hooks.on_train_batch_end(trainer, None, torch.tensor(1.0), None, number)
    assert [line["step"] for line in told(environ)] == [1, 2, 3]


@pytest.mark.parametrize(("drilled", "known"), [(False, [50, 100]), (True, list(range(1, 101)))])
def test_a_loss_that_must_be_waited_for_is_looked_at_as_often_as_lightning_does(
    tmp_path: Path, drilled: bool, known: list[int]
) -> None:
    environ = environ_of(tmp_path, drilled=drilled)
    hooks, trainer = _LightningHooks(environ=environ, longest_interval_s=1e9), FakeLightning(False)
    trainer.callback_metrics["train_loss"] = torch.tensor(0.5)  # a module that steps its optimizers itself
    lightning_steps(hooks, trainer, range(1, 101), lambda _step: None)
    assert [line["step"] for line in told(environ) if line.get("loss") == 0.5] == known
    assert len(told(environ)) == 100


def test_a_lightning_that_cannot_say_its_steps_and_odd_outputs_do_not_stop_it(tmp_path: Path) -> None:
    environ = environ_of(tmp_path)
    hooks, trainer = _LightningHooks(environ=environ, longest_interval_s=1e9), FakeLightning(False)
    trainer.estimated_stepping_batches = math.inf
    lightning_steps(hooks, trainer, range(1, 4), lambda _step: ["no", "loss"])
    assert [(line["step"], line["steps"], "loss" in line) for line in told(environ)] == [
        (step, None, False) for step in (1, 2, 3)
    ]


# ------------------------------------------------------------------------------------------ the real packages


def train_with_transformers(environ: Environ, killed: bool) -> Lines:
    import transformers

    class Kills(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
            control.should_save = state.global_step == 5

        def on_step_begin(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
            if state.global_step == 9 and killed:
                raise Killed

    data = [{"x": torch.arange(4.0) / 4 + item / 24, "labels": torch.tensor(0.5)} for item in range(24)]
    arguments = transformers.TrainingArguments(
        str(Path(environ["TENANT_OUTPUT_DIR"]) / "hf"), num_train_epochs=1, per_device_train_batch_size=2,
        save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, logging_steps=500,
    )  # fmt: skip
    callback = trainer_callback(arguments.output_dir, longest_interval_s=1e9, environ=environ)
    trainer = transformers.Trainer(Regression(), arguments, train_dataset=data, callbacks=[callback, Kills()])
    latest = callback.load_latest()
    try:
        trainer.train(resume_from_checkpoint=latest)
    except Killed:
        assert killed
    return told(environ)


def train_with_lightning(environ: Environ, killed: bool) -> Lines:
    import lightning.pytorch as lightning

    class Model(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.inner = torch.nn.Linear(4, 1)

        def training_step(self, batch: Any, index: int) -> Any:
            if killed and index == 9:
                raise Killed
            return self.inner(batch).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    batches = ShuffledBatches(24, 2)
    # Saves at the first step only.
    callback = lightning_callback(batches=batches, longest_interval_s=1e9, environ=environ)
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[callback], enable_checkpointing=False, logger=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader([torch.ones(4) * item / 24 for item in range(24)], batch_sampler=batches)
    try:
        trainer.fit(Model(), loader, ckpt_path=callback.load_latest())
    except Killed:
        assert killed
    return told(environ)


@pytest.mark.parametrize(("train", "saved"), [(train_with_transformers, 5), (train_with_lightning, 1)])
def test_a_drill_of_the_real_packages_has_what_it_needs(tmp_path: Path, train: Train, saved: int) -> None:
    before = train(environ_of(tmp_path, 1, drilled=True), True)
    after = train(environ_of(tmp_path, 2, drilled=True), False)
    assert [line["step"] for line in before] == list(range(1, 10))
    assert (after[0]["resumed_from"], after[1]["step"], after[-1]["step"]) == (saved, saved + 1, 12)
    assert {line["steps"] for line in before + after[1:]} == {12}
    verdict = judge(before, after, saved, tolerance=0.0)
    assert (verdict.reason, verdict.compared) == ("passed", 9 - saved), verdict
