# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Train a small network on handwritten digits. The same command starts or goes on.

    python train.py                      writes out/model.pt, out/metrics.json and out/checkpoints/
    python train.py --smoke              two batches on the CPU, nothing left behind

Killed at any moment and started again, it ends with the same weights, bit for bit, as a run that was left alone:
same machine type, torch build and number of threads provided (``--threads`` is fixed for that reason).
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from typing import Any

# OpenMP reads this when torch is loaded: threads that wait shall sleep. Spinning is a little faster on idle cores and
# many times slower where other processes want the same ones.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import digits
import torch
from tenant_checkpoint import EXIT_STOPPED, Checkpointer, CheckpointError, ShuffledBatches, write_json, write_torch
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

LONGEST_INTERVAL_S = 5.0
"""A run of half a minute would otherwise see two or three checkpoints; hours of training do not need this."""


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a small network on handwritten digits, resumably.")
    parser.add_argument("--epochs", type=int, default=100, help="passes over the images (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="images in a step (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="at the start (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=os.environ.get("TENANT_SEED", "0"), help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch (default: %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")
    parser.add_argument("--out", default=os.environ.get("TENANT_OUTPUT_DIR", "out"), help="default: %(default)s")
    parser.add_argument("--smoke", action="store_true", help="two batches on the CPU in a temporary folder")
    return parser.parse_args(arguments)


def be_deterministic(seed: int, threads: int) -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.set_num_threads(threads)
    random.seed(seed)
    torch.manual_seed(seed)


class Training:
    """Everything that changes while training, and the one step that changes it."""

    def __init__(self, options: argparse.Namespace, images: int) -> None:
        self.device = torch.device(options.device)
        self.network = digits.Network().to(self.device)
        self.averaged = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(0.99))
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=options.learning_rate, weight_decay=0.01)
        self.batches = ShuffledBatches(images, options.batch_size, seed=options.seed)
        self.total_steps = options.epochs * len(self.batches)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, max(1, self.total_steps))

    def objects(self) -> dict[str, Any]:
        return {
            "network": self.network,
            "averaged": self.averaged,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
        }

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        scores = self.network(digits.distort(images).to(self.device))
        loss = functional.cross_entropy(scores, labels.to(self.device), label_smoothing=0.05)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.averaged.update_parameters(self.network)
        return loss.item()


def train(training: Training, checkpoints: Checkpointer, split: digits.Split, epochs: int) -> bool:
    """Train to the end; False if asked to stop before (the state is saved then)."""
    training.network.train()
    while training.batches.epoch < epochs:
        for indices in training.batches:
            loss = training.step(split.images[indices], split.labels[indices])
            checkpoints.after_step(loss=loss)
            if checkpoints.should_stop:
                return False
        print(f"epoch {training.batches.epoch}/{epochs}  step {checkpoints.step}  loss {loss:.4f}", flush=True)
    checkpoints.save(wait=True)
    return True


def write_results(options: argparse.Namespace, training: Training, checkpoints: Checkpointer, wall_s: float) -> None:
    """``model.pt`` depends on the training alone; what differs from try to try is in ``metrics.json``."""
    network = training.averaged.module
    accuracy, loss = digits.measure(network, digits.load_digits()[1])
    about = {"step": checkpoints.step, "epochs": checkpoints.epoch, "seed": options.seed, "accuracy": accuracy}
    weights = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
    write_torch(os.path.join(options.out, "model.pt"), {"state_dict": weights, "meta": about})
    measured = {
        "loss": loss,
        "steps": checkpoints.step,
        "wall_s": round(wall_s, 3),
        "train_s": round(checkpoints.trained_s, 3),
        "resumed_from": checkpoints.resumed_from,
        "threads": options.threads,
        "torch": torch.__version__,
        "device": str(training.device),
    }
    write_json(os.path.join(options.out, "metrics.json"), {**about, **measured})
    print(f"accuracy {accuracy:.4f} on the held-out digits after {checkpoints.step} steps", flush=True)


def run(options: argparse.Namespace, environ: dict[str, str]) -> int:
    started = time.monotonic()
    be_deterministic(options.seed, options.threads)
    training_split, _held_out = digits.load_digits()
    training = Training(options, len(training_split.labels))
    checkpoints = Checkpointer(
        training.objects(),
        batches=training.batches,
        total_steps=training.total_steps,
        config={name: getattr(options, name) for name in ("epochs", "batch_size", "learning_rate", "seed")},
        directory=environ.get("TENANT_CHECKPOINT_DIR") or os.path.join(options.out, "checkpoints"),
        longest_interval_s=LONGEST_INTERVAL_S,
        environ=environ,
    )
    if checkpoints.load_latest():
        print(f"going on from step {checkpoints.step}", flush=True)
    if not train(training, checkpoints, training_split, options.epochs):
        print(f"asked to stop: saved at step {checkpoints.step}", flush=True)
        return EXIT_STOPPED
    write_results(options, training, checkpoints, time.monotonic() - started)
    return 0


def smoke(options: argparse.Namespace) -> int:
    """Two batches, a checkpoint, a resume and the results: all that a real run does, on the CPU, in no time."""
    options.device, options.epochs, options.batch_size = "cpu", 1, 720
    with tempfile.TemporaryDirectory() as folder:
        options.out = folder
        return run(options, {}) or run(options, {})


def main(arguments: list[str]) -> int:
    options = parse_arguments(arguments)
    try:
        return smoke(options) if options.smoke else run(options, dict(os.environ))
    except CheckpointError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
