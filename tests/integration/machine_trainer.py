# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One rank of a replicated training, as if it were alone on its machine: ``machine_trainer.py STEPS MEETING``."""

from __future__ import annotations

import json
import os
import sys

import torch
import torch.distributed as dist
from tenant_checkpoint import Checkpointer


def main(steps: int, meeting: str) -> None:
    torch.set_num_threads(1)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    torch.manual_seed(3 + rank)  # only the checkpoint makes the machines alike
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    checkpoints = Checkpointer({"model": model, "optimizer": optimizer}, total_steps=steps)
    resumed = checkpoints.load_latest()
    weights = model.weight.tolist()
    while checkpoints.step < steps:
        loss = model(torch.ones(2, 4)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        # The third step is the best there ever is.
        checkpoints.after_step(loss=loss.item(), metric=1.0 if checkpoints.step == 2 else 0.0)
    checkpoints.save(wait=True)
    best = checkpoints.best["step"] if checkpoints.best else None
    told = {"rank": rank, "resumed": resumed, "weights": weights, "ends": model.weight.tolist(), "best": best}
    print(json.dumps(told))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
