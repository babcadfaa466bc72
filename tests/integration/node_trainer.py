# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A trainer that several boxes run together under torchrun: gloo on the CPU, weights in pieces, resumable.

``weights`` grow by one with every step, so what a checkpoint must hold is known from its step alone. Each box keeps its
own pieces and, beside them, the index of all. Nothing but sharded tensors is saved: torch gives a value that all ranks
share to one of them only. Trains on until the file RELEASE is there, so that "while it trains" is a
condition and not a guess.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

SAVE_EVERY = 20
KEEP = 3


def fresh() -> dict[str, Any]:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    return {"weights": distribute_tensor(torch.arange(64.0).reshape(8, 8), mesh, [Shard(0)]), "step": 0}


def resume() -> dict[str, Any]:
    """The newest checkpoint that every rank has its pieces of, else a fresh start."""
    state = fresh()
    folders = [Path(folder) for folder in os.environ["TENANT_RESUME_DIRS"].split(os.pathsep) if folder]
    mine = {int(path.name[5:]): path for folder in reversed(folders) for path in folder.glob("step-*")}
    everyones: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyones, sorted(mine))
    common = set.intersection(*map(set, everyones))
    if common:
        dcp.load({"weights": state["weights"]}, checkpoint_id=str(mine[max(common)]))
        state["step"] = max(common)
        note({"resumed_from": state["step"]})
    return state


def save(state: dict[str, Any], folder: Path) -> None:
    unfinished, path = folder / f"{state['step']}.tmp", folder / f"step-{state['step']}"
    dcp.save({"weights": state["weights"]}, checkpoint_id=str(unfinished))
    index = [(unfinished / ".metadata").read_bytes() if dist.get_rank() == 0 else b""]
    dist.broadcast_object_list(index, src=0)
    (unfinished / ".metadata").write_bytes(index[0])
    unfinished.rename(path)
    for old in sorted(folder.glob("step-*"), key=lambda each: int(each.name[5:]))[:-KEEP]:
        shutil.rmtree(old)


def note(line: dict[str, Any]) -> None:
    with open(os.environ["TENANT_METRICS"], "a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def main(release: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    state, output = resume(), Path(os.environ["TENANT_OUTPUT_DIR"])
    print(f"rank {dist.get_rank()} of {dist.get_world_size()}", flush=True)
    while True:
        time.sleep(0.03)  # a step on a GPU leaves the processor to others, here to the plays and the other ranks
        ended = torch.tensor([float(os.path.exists(release))])
        dist.all_reduce(ended)
        state["weights"] += 1
        state["step"] += 1
        if state["step"] % SAVE_EVERY == 0:
            save(state, output / "checkpoints")
            note({"step": state["step"], "loss": 1 / state["step"]})
            if ended.item() == dist.get_world_size():
                break
    if dist.get_rank() == 0:
        (output / "metrics.json").write_text(json.dumps({"loss": 0.5, "step": state["step"]}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
