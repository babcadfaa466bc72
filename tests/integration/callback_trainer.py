# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A training by the real Trainer of transformers or of Lightning, which writes no line of progress of its own."""

from __future__ import annotations

import sys
from typing import Any

import torch
from tenant_checkpoint import EXIT_STOPPED, ShuffledBatches, lightning_callback, trainer_callback

IMAGES, BATCH, EPOCHS = 4000, 4, 100


def inputs() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return list(torch.randn(IMAGES, 8, generator=generator))


def with_transformers() -> bool:
    import transformers

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Linear(8, 1)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": (self.inner(x) - x.sum(-1, keepdim=True)).square().mean()}

    transformers.set_seed(3)
    arguments = transformers.TrainingArguments(
        "results", num_train_epochs=EPOCHS, per_device_train_batch_size=BATCH, save_strategy="no", report_to=[],
        use_cpu=True, disable_tqdm=True, logging_steps=500, learning_rate=1e-4,
    )  # fmt: skip
    callback = trainer_callback(arguments.output_dir)
    data = [{"x": each} for each in inputs()]
    transformers.Trainer(Model(), arguments, train_dataset=data, callbacks=[callback]).train(
        resume_from_checkpoint=callback.load_latest()
    )
    return bool(callback.should_stop)


def with_lightning() -> bool:
    import lightning.pytorch as lightning

    class Model(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Linear(8, 1)

        def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
            loss: torch.Tensor = (self.inner(batch) - batch.sum(-1, keepdim=True)).square().mean()
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1e-4)

    lightning.seed_everything(3)
    batches = ShuffledBatches(IMAGES, BATCH, seed=3)
    callback = lightning_callback(batches=batches)
    trainer = lightning.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", callbacks=[callback], enable_checkpointing=False, logger=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(inputs(), batch_sampler=batches)  # type: ignore[arg-type]
    trainer.fit(Model(), loader, ckpt_path=callback.load_latest())
    return bool(callback.should_stop)


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)
    stopped = {"transformers": with_transformers, "lightning": with_lightning}[sys.argv[1]]()
    sys.exit(EXIT_STOPPED if stopped else 0)
