# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a save takes from the training: 1 GiB of float32 (a model and AdamW's state), on the CPU.

*Held* is the time inside the call, which is all that the loop waits for; the write behind has ended before the next
timing begins. The last rows are a whole training loop of two threads with one save in it, against the same without.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from harness import Row, compare
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "roles" / "deploy" / "files"))
Checkpointer = importlib.import_module("tenant_checkpoint").Checkpointer

TITLE = "Checkpoints: what a save takes from the training"
LAYERS = int(os.environ.get("CHECKPOINT_SAVE_LAYERS", "38"))
SIDE = 1536  # 9 MiB of weights a layer, three times with AdamW: 38 layers are 1 GiB
ROUNDS = int(os.environ.get("CHECKPOINT_SAVE_ROUNDS", "5"))
LOOP_STEPS = 16


class Training:
    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.folder = folder
        self.model = torch.nn.Sequential(*(torch.nn.Linear(SIDE, SIDE, bias=False) for _layer in range(LAYERS)))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.step()
        self.checkpoints = Checkpointer(
            {"model": self.model, "optimizer": self.optimizer},
            directory=str(folder / "ours"),
            keep_last=1,
            environ={"TENANT_MU_S": "1e12"},
        )
        self.stager = DefaultStager(StagingOptions(False, False, False, False))
        self._futures: list[Any] = []

    def step(self) -> None:
        loss = self.model(torch.randn(8, SIDE)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def state(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def settle(self) -> None:
        """Let what is under way end, and give each way to save an empty place."""
        self.checkpoints.wait()
        for future in self._futures:
            getattr(future, "upload_completion", future).result()
        self._futures.clear()
        for name in ("theirs.pt", "dcp"):
            path = self.folder / name
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)
        os.sync()

    def save_ours(self) -> None:
        self.checkpoints.step += 1
        self.checkpoints.save()

    def save_torch(self) -> None:
        torch.save(self.state(), self.folder / "theirs.pt")

    def save_torch_synced(self) -> None:
        with (self.folder / "theirs.pt").open("wb") as stream:
            torch.save(self.state(), stream)
            stream.flush()
            os.fsync(stream.fileno())

    def save_dcp(self) -> None:
        """As it is called most simply: its copy is made in new memory each time."""
        self._futures.append(dcp.async_save(self.state(), checkpoint_id=self.folder / "dcp"))

    def save_dcp_stager(self) -> None:
        """With a stager kept between saves, whose memory is used again."""
        answer = dcp.async_save(self.state(), checkpoint_id=self.folder / "dcp", async_stager=self.stager)
        self._futures.append(answer)

    def loop(self, save: Any = None) -> None:
        for number in range(LOOP_STEPS):
            self.step()
            if number == 1 and save is not None:
                save()


@contextmanager
def training() -> Iterator[Training]:
    with tempfile.TemporaryDirectory(prefix="checkpoint-save-") as folder:
        begun = Training(Path(folder))
        yield begun
        begun.settle()


def timed(action: Any) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def rows() -> list[Row]:
    torch.set_num_threads(2)
    with training() as it:
        it.settle()
        blocking = timed(it.save_torch)
        it.settle()
        first = timed(it.save_ours)
        found = [Row("the first save() of a process, held / torch.save", (first,), (blocking,))]

        def held(name: str, ours: Any, theirs: Any, limit: float | None = None) -> None:
            found.append(compare(name, ours, theirs, limit=limit, rounds=ROUNDS, before=it.settle))

        held("save(), held / torch.save, which does not sync", it.save_ours, it.save_torch, 0.10)
        held("save(), held / torch.save and fsync", it.save_ours, it.save_torch_synced)
        held("dcp.async_save, held / torch.save", it.save_dcp, it.save_torch)
        held("dcp.async_save with a kept stager, held / torch.save", it.save_dcp_stager, it.save_torch)
        held("save(), held / dcp.async_save with a kept stager, held", it.save_ours, it.save_dcp_stager)
        for name, save in {
            "save()": it.save_ours,
            "dcp.async_save with a kept stager": it.save_dcp_stager,
            "torch.save and fsync": it.save_torch_synced,
        }.items():
            held(f"{LOOP_STEPS} steps with one {name} / without", lambda save=save: it.loop(save), it.loop)
        return found
