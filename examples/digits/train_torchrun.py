# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The digits on several processes: replicated (DDP) or, with ``--sharded``, in pieces (FSDP).

    torchrun --standalone --nproc-per-node 4 train_torchrun.py --sharded
    torchrun --standalone --nproc-per-node 2 train_torchrun.py --sharded      # goes on from what the four have saved

The batch is that of all processes together, so any number that divides it trains on the same images in the same order.
Killed and started again with as many processes it ends with the same weights, bit for bit; with another number the
sums are rounded differently, and each process draws other distortions.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import digits
import torch
import torch.distributed as dist
from tenant_checkpoint import EXIT_STOPPED, Checkpointer, CheckpointError, ShuffledBatches, write_json, write_torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train on handwritten digits with several processes, resumably.")
    parser.add_argument("--epochs", type=int, default=10, help="passes over the images (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="images in a step, over all (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=os.environ.get("TENANT_SEED", "0"), help="default: %(default)s")
    parser.add_argument("--sharded", action="store_true", help="FSDP: every process holds a part of the model")
    parser.add_argument("--out", default=os.environ.get("TENANT_OUTPUT_DIR", "out"), help="default: %(default)s")
    return parser.parse_args(arguments)


def build(options: argparse.Namespace, device: torch.device) -> nn.Module:
    """The network, the same on every rank, wrapped for them."""
    torch.manual_seed(options.seed)
    network = digits.Network().to(device)
    if not options.sharded:
        return DistributedDataParallel(network)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    return fully_shard(network, mesh=init_device_mesh(device.type, (dist.get_world_size(),)))


def train(options: argparse.Namespace, device: torch.device) -> int:
    started, rank, world = time.monotonic(), dist.get_rank(), dist.get_world_size()
    training, held_out = digits.load_digits()
    model = build(options, device)
    torch.manual_seed(options.seed + 1 + rank)  # each rank distorts its images in its own way
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate)
    batches = ShuffledBatches(
        len(training.labels), options.batch_size, seed=options.seed, drop_last=True, rank=rank, world=world
    )
    checkpoints = Checkpointer(
        {"network": model, "optimizer": optimizer},
        batches=batches,
        total_steps=options.epochs * len(batches),
        config={name: getattr(options, name) for name in ("epochs", "batch_size", "learning_rate", "seed")},
        directory=os.environ.get("TENANT_CHECKPOINT_DIR") or os.path.join(options.out, "checkpoints"),
        longest_interval_s=5.0,
    )
    checkpoints.load_latest()
    if checkpoints.resumed_from and rank == 0:
        print(f"going on from step {checkpoints.step} with {world} processes", flush=True)
    while batches.epoch < options.epochs:
        for indices in batches:
            loss = step(model, optimizer, training.images[indices].to(device), training.labels[indices].to(device))
            checkpoints.after_step(loss=loss)
            if checkpoints.should_stop:
                return EXIT_STOPPED
    checkpoints.save(wait=True)
    write_results(options, model, checkpoints, held_out, time.monotonic() - started)
    return 0


def step(model: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor) -> float:
    loss = functional.cross_entropy(model(digits.distort(images)), labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()


def write_results(
    options: argparse.Namespace, model: nn.Module, checkpoints: Checkpointer, held_out: digits.Split, wall_s: float
) -> None:
    """All ranks put the whole network together; rank 0 measures and writes it."""
    whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if dist.get_rank() != 0:
        return
    network = digits.Network()
    network.load_state_dict({name.replace("module.", "", 1): tensor for name, tensor in whole.items()})
    accuracy, loss = digits.measure(network, held_out)
    about: dict[str, Any] = {"step": checkpoints.step, "epochs": checkpoints.epoch, "seed": options.seed}
    about["accuracy"] = accuracy
    write_torch(os.path.join(options.out, "model.pt"), {"state_dict": dict(network.state_dict()), "meta": about})
    measured = {"loss": loss, "world": dist.get_world_size(), "resumed_from": checkpoints.resumed_from}
    write_json(os.path.join(options.out, "metrics.json"), {**about, **measured, "wall_s": round(wall_s, 3)})
    print(f"accuracy {accuracy:.4f} on the held-out digits after {checkpoints.step} steps", flush=True)


def main(arguments: list[str]) -> int:
    options = parse_arguments(arguments)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    torch.set_num_threads(1)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        return train(options, device)
    except CheckpointError as error:
        print(f"train_torchrun.py, rank {dist.get_rank()}: {error}", file=sys.stderr)
        return 1
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
