# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A replicated model that several boxes train under torchrun, saved by rank 0 of them: ``wide_trainer.py RELEASE``.

Trains on until the file RELEASE is there.
"""

from __future__ import annotations

import json
import os
import sys
import time

import torch
import torch.distributed as dist
from tenant_checkpoint import EXIT_STOPPED, Checkpointer


def main(release: str) -> int:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    torch.manual_seed(3)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    checkpoints = Checkpointer({"model": model.module, "optimizer": optimizer}, longest_interval_s=0.5)
    resumed = checkpoints.load_latest()
    ended = torch.zeros(1)
    while not ended.item():
        time.sleep(0.05)  # as a step on a GPU, it leaves the processor to others
        loss = model(torch.ones(2, 4)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        checkpoints.after_step(loss=loss.item())
        if checkpoints.should_stop:
            return EXIT_STOPPED
        ended = torch.tensor([float(os.path.exists(release))])
        dist.all_reduce(ended)
    checkpoints.save(wait=True)
    if dist.get_rank() == 0:
        with open(os.path.join(os.environ["TENANT_OUTPUT_DIR"], "metrics.json"), "w", encoding="utf-8") as stream:
            json.dump({"step": checkpoints.step, "resumed": resumed}, stream)
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
