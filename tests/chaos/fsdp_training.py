# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A training with FullyShardedDataParallel as most scripts have it, with or without a device_mesh. Under torchrun."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import torch
import torch.distributed as dist
from tenant_checkpoint import Checkpointer
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--mesh", action="store_true")
    options = parser.parse_args()
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 4))
    mesh = init_device_mesh("cpu", (dist.get_world_size(),)) if options.mesh else None
    cpu = torch.device("cpu")
    model = FullyShardedDataParallel(network, device_id=cpu, use_orig_params=True, device_mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    objects = {"model": model, "optimizer": optimizer}
    checkpoints = Checkpointer(objects, directory=str(options.out / "checkpoints"), environ={}, longest_interval_s=1e9)
    resumed_from = checkpoints.load_latest()
    while checkpoints.step < options.steps:
        # The same on every rank and at every step, so that it matters neither how many there are nor who resumes.
        loss = model(torch.linspace(-1, 1, 32).reshape(4, 8)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        checkpoints.after_step(loss=loss)
    checkpoints.save(wait=True)
    with FullyShardedDataParallel.summon_full_params(model):
        weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    if dist.get_rank() == 0:
        digest = hashlib.sha256(weights.numpy().tobytes()).hexdigest()
        answer = {"resumed_from": resumed_from, "step": checkpoints.step, "weights": digest}
        (options.out / "answer.json").write_text(json.dumps(answer))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
