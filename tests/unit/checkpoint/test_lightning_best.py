# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The best model of a Lightning training: saved when a validation says so, and kept beside the newest ones."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tenant_checkpoint import ShuffledBatches, _LightningHooks, lightning_callback, manifest_of
from test_checkpoint_folders import Box, FakeLightning, Killed


def begun(environ: dict[str, str], step: int = 0, state: Any = None, **options: Any) -> tuple[Any, FakeLightning]:
    """A training that saves at its first step, and later only when a validation says so."""
    hooks = _LightningHooks(environ=environ, longest_interval_s=1e9, monitor="val_loss", **options)
    trainer = FakeLightning(sharded=False)
    trainer.global_step = step
    if state is not None:
        hooks.load_state_dict(state)
    hooks.on_train_start(trainer, None)
    return hooks, trainer


def validate(hooks: Any, trainer: FakeLightning, step: int, **metrics: float) -> None:
    trainer.global_step = step
    hooks.on_train_batch_end(trainer, None, None, None, step)
    trainer.callback_metrics.update({name: torch.tensor(value) for name, value in metrics.items()})
    hooks.on_validation_end(trainer, None)


def saved(folder: Path) -> list[int]:
    return sorted(int(path.stem[len("step-") :]) for path in folder.glob("step-*.ckpt"))


@pytest.mark.parametrize(("mode", "sign"), [("min", 1.0), ("max", -1.0)])
def test_the_best_is_saved_when_it_is_measured_and_stays(tmp_path: Path, mode: str, sign: float) -> None:
    box = Box(tmp_path / "box", tmp_path / "mount")
    hooks, trainer = begun(box.environ(1), mode=mode, keep_last=1)
    for step, loss in ((10, 3.0), (20, 1.0), (30, 2.0), (40, math.nan), (50, 1.0)):
        validate(hooks, trainer, step, val_loss=sign * loss)
    assert saved(box.checkpoints(1)) == [20], "none after it was better, or due"
    hooks._step = trainer.global_step = 60
    hooks._save(trainer)
    for folder in (box.checkpoints(1), tmp_path / "mount" / "a1"):
        assert saved(folder) == [20, 60]
        assert manifest_of(str(folder / "step-0000000060.ckpt"))["best"] == 20, (
            "so that it comes home beside the newest"
        )


def test_only_a_validation_of_the_training_itself_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    box = Box(tmp_path)
    hooks, trainer = begun(box.environ(1))
    trainer.sanity_checking = True
    validate(hooks, trainer, 10, val_loss=1.0)
    trainer.sanity_checking, trainer.state.fn = False, "validate"
    validate(hooks, trainer, 20, val_loss=0.5)
    assert (hooks.best, saved(box.checkpoints(1))) == (None, [10]), "that was the first step"
    trainer.state.fn = "fit"
    trainer.callback_metrics.clear()
    for step in (30, 40):
        validate(hooks, trainer, step, val_los=0.5)
    assert caplog.text.count("no validation logs val_loss, so no best is kept; logged: val_los") == 1
    assert saved(box.checkpoints(1)) == [10]


def test_without_a_monitor_nothing_is_measured(tmp_path: Path) -> None:
    box = Box(tmp_path)
    hooks, trainer = _LightningHooks(environ=box.environ(1), longest_interval_s=1e9), FakeLightning(False)
    hooks.on_train_start(trainer, None)
    validate(hooks, trainer, 10, val_loss=1.0)
    validate(hooks, trainer, 20, val_loss=0.5)
    assert saved(box.checkpoints(1)) == [10]
    with pytest.raises(ValueError, match="mode is 'min' or 'max', not 'lowest'"):
        _LightningHooks(monitor="val_loss", mode="lowest")


def test_the_best_of_an_earlier_attempt_stays_the_best(tmp_path: Path) -> None:
    box = Box(tmp_path)
    hooks, trainer = begun(box.environ(1))
    validate(hooks, trainer, 10, val_loss=1.0)
    state = hooks.state_dict()
    hooks, trainer = begun(box.environ(2), 10, state)
    assert saved(box.checkpoints(2)) == [], "it has not saved anything yet"
    validate(hooks, trainer, 20, val_loss=1.5)
    assert saved(box.checkpoints(2)) == []
    hooks._save(trainer)
    assert saved(box.checkpoints(2)) == [10, 20]
    # Another measure starts anew, and a best that is nowhere any more is none.
    assert begun(box.environ(3), 10, state, mode="max")[0].best is None
    shutil.rmtree(box.checkpoints(1))
    shutil.rmtree(box.checkpoints(2))
    hooks, trainer = begun(box.environ(3), 10, state)
    validate(hooks, trainer, 30, val_loss=1.5)
    assert (hooks.best["step"], saved(box.checkpoints(3))) == (30, [30])


@pytest.mark.parametrize("val_check", [1.0, 0.5])
def test_the_real_lightning_keeps_its_best_over_a_kill_and_ends_with_the_same_weights(
    tmp_path: Path, val_check: float
) -> None:
    import lightning.pytorch as lightning

    class Model(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self, kill_at: int) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.inner, self.kill_at = torch.nn.Linear(4, 1), kill_at

        def training_step(self, batch: Any, index: int) -> Any:
            if self.global_step == self.kill_at:
                raise Killed
            return self.inner(batch).square().mean()

        def validation_step(self, batch: Any, index: int) -> None:
            # Best in mid-training, whatever the weights are.
            self.log("val_loss", abs(self.global_step - 12.0))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    def train(environ: dict[str, str], kill_at: int = -1) -> tuple[Any, Any, str | None]:
        batches = ShuffledBatches(12, 2)
        callback = lightning_callback(
            batches=batches, environ=environ, longest_interval_s=1e9, keep_last=1, monitor="val_loss"
        )
        trainer = lightning.Trainer(
            max_epochs=4, accelerator="cpu", callbacks=[callback], enable_checkpointing=False, logger=False,
            enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
            val_check_interval=val_check,
        )  # fmt: skip
        data = [torch.ones(4) * item / 12 for item in range(12)]
        loader = torch.utils.data.DataLoader(data, batch_sampler=batches)  # type: ignore[arg-type]
        model, latest = Model(kill_at), callback.load_latest()
        try:
            trainer.fit(model, loader, torch.utils.data.DataLoader(data[:2]), ckpt_path=latest)
        except Killed:
            assert kill_at >= 0
        return callback, model.inner.weight.detach().clone(), latest

    undisturbed, weights, _none = train(Box(tmp_path / "whole").environ(1))
    box = Box(tmp_path / "box")
    train(box.environ(1), kill_at=14)
    callback, resumed, latest = train(box.environ(2))
    assert latest == str(box.checkpoints(1) / "step-0000000012.ckpt")
    assert torch.equal(resumed, weights)
    assert callback.best == undisturbed.best
    assert callback.best["step"] == 12
    assert 12 in saved(Box(tmp_path / "whole").checkpoints(1))
