# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A real, tiny training with tenant_checkpoint: one process, or several of torchrun with the model in pieces (FSDP)."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

import torch
import torch.distributed as dist
from tenant_checkpoint import EXIT_STOPPED, Checkpointer, ShuffledBatches, write_torch
from torch import nn


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--save-every", type=int, default=0, help="besides the saves that the cadence wants")
    parser.add_argument("--hold-at", type=int, default=0, help="wait for the gate after this step")
    parser.add_argument("--gate", default="")
    parser.add_argument("--sharded", action="store_true")
    return parser.parse_args()


def build(sharded: bool) -> nn.Module:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    if not sharded:
        return model
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    return fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))


def train(options: argparse.Namespace) -> int:
    rank, world = (dist.get_rank(), dist.get_world_size()) if options.sharded else (0, 1)
    model = build(options.sharded)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    batches = ShuffledBatches(64, 8, seed=5, rank=rank, world=world)
    data = torch.randn(64, 8, generator=torch.Generator().manual_seed(7))
    objects = {"model": model, "optimizer": optimizer}
    checkpoints = Checkpointer(objects, batches, options.steps, longest_interval_s=1e-6)
    checkpoints.load_latest()
    while checkpoints.step < options.steps:
        for indices in batches:
            loss = (model(data[indices]) - data[indices][:, :4]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            checkpoints.after_step(loss=loss.item())
            if options.save_every and checkpoints.step % options.save_every == 0:
                checkpoints.save(wait=True)
            if checkpoints.step == options.hold_at and rank == 0:
                with open(options.gate, encoding="ascii") as stream:
                    stream.read()
            if checkpoints.should_stop:
                return EXIT_STOPPED
            if checkpoints.step == options.steps:
                break
    checkpoints.save(wait=True)
    write_results(model, checkpoints.step, rank)
    return 0


def write_results(model: nn.Module, step: int, rank: int) -> None:
    state: dict[str, Any] = {}
    for name, tensor in model.state_dict().items():
        state[name] = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    if rank == 0:
        write_torch(os.path.join(os.environ["TENANT_OUTPUT_DIR"], "model.pt"), {"state": state, "step": step})


def main() -> int:
    options = parse_arguments()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    if not options.sharded:
        return train(options)
    dist.init_process_group("gloo")
    try:
        return train(options)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
