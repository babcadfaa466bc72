# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One rank of a real distributed run: gloo on the CPU, a sharded tensor, torch.distributed.checkpoint.

Each rank saves into the output folder of its own box, as ranks on machines without a shared disk do.
"""

from __future__ import annotations

import json
import os
import sys

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor


def main(steps: list[int]) -> None:
    torch.set_num_threads(1)
    rank, output = int(os.environ["RANK"]), os.environ["TENANT_OUTPUT_DIR"]
    dist.init_process_group("gloo", init_method=f"file://{os.environ['RENDEZVOUS']}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    for step in steps:
        weights = distribute_tensor(torch.arange(64.0).reshape(8, 8) + step, mesh, [Shard(0)])
        state = {"weights": weights, "step": step}
        dcp.save(state, checkpoint_id=os.path.join(output, "checkpoints", f"step-{step}"))
    with open(os.path.join(output, "metrics.json"), "w", encoding="utf-8") as stream:
        json.dump({"loss": 0.5, "rank": rank}, stream)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]])
