# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a save takes from the training: 1 GiB of float32 (a model and AdamW's state), on the CPU.

*Held* is the time inside the call, which is all that the loop waits for; the write behind has ended before the next
timing begins. The last rows are a whole training loop of two threads with one save in it, against the same without.

``TENANT_BENCH_DEVICE=cuda`` (or ``cuda:1``) has the state there, ``TENANT_BENCH_GIB=20`` makes it so large; ``TMPDIR``
says on which disk. Copies from a device go through pinned memory on a stream of their own, and the training's stream
waits for them: so what a save holds is also taken until the device goes on, which is longer than the call. Each timing
begins on a device that rests. Rows that are not of the default stand beside it in its table, under a name of their own.

All is measured in a process of its own, which begins with what the supervisor tells a trainer's C library.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from harness import Row, compare
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "roles" / "deploy" / "files"))
Checkpointer = importlib.import_module("tenant_checkpoint").Checkpointer

TITLE = "Checkpoints: what a save takes from the training"
DEVICE = os.environ.get("TENANT_BENCH_DEVICE", "cpu")
GIB = float(os.environ.get("TENANT_BENCH_GIB", "1"))
SIDE = 1536  # 9 MiB of weights a layer, three times with AdamW: 38 layers are 1 GiB
LAYERS = max(1, round(38 * GIB))
# Beside the default's rows, which stay.
PART = (DEVICE, GIB) != ("cpu", 1.0)
# Two checkpoints of ours while the second is written, and one of another's.
_DISK_SHARE, _DEVICE_SHARE, _MEMORY_SHARE = 3.2, 1.5, 3.0
ROUNDS = int(os.environ.get("CHECKPOINT_SAVE_ROUNDS", "5"))
LOOP_STEPS = 16


class Training:
    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.folder = folder
        layers = (torch.nn.Linear(SIDE, SIDE, bias=False, device=DEVICE) for _layer in range(LAYERS))
        self.model = torch.nn.Sequential(*layers)
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
        loss = self.model(torch.randn(8, SIDE, device=DEVICE)).square().mean()
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
        await_device()

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
        await_device()


def on_device() -> bool:
    return DEVICE.startswith("cuda")


def await_device() -> None:
    if on_device():
        torch.cuda.synchronize(DEVICE)


def refusal() -> str:
    """Why this machine cannot measure what is asked for; empty when it can."""
    if DEVICE != "cpu" and not re.fullmatch(r"cuda(:\d+)?", DEVICE):
        return f"TENANT_BENCH_DEVICE={DEVICE} is neither cpu nor cuda"
    # Of nan too, which is no size and is not less than one either.
    if math.isnan(GIB) or GIB <= 0:
        return f"TENANT_BENCH_GIB={GIB:g} is no size"
    seen = torch.cuda.device_count()
    if on_device() and int(DEVICE.partition(":")[2] or 0) >= seen:
        return f"TENANT_BENCH_DEVICE={DEVICE}: torch {torch.__version__} sees {seen} CUDA devices here"
    room = {"the disk of " + tempfile.gettempdir(): (shutil.disk_usage(tempfile.gettempdir()).free, _DISK_SHARE)}
    room["host memory"] = (os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES"), _MEMORY_SHARE)
    if on_device():
        room[DEVICE] = (torch.cuda.mem_get_info(DEVICE)[0], _DEVICE_SHARE)
    for what, (free, share) in room.items():
        if free < share * GIB * 2**30:
            return f"{GIB:g} GiB of state need {share * GIB:.1f} GiB of {what}, where {free / 2**30:.1f} are free"
    return ""


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


def until_device_goes_on(save: Any) -> Any:
    def action() -> None:
        save()
        await_device()

    return action


def where() -> str:
    """What the names of rows begin with that are not of the default."""
    if not PART:
        return ""
    return f"{torch.cuda.get_device_name(DEVICE) if on_device() else 'CPU'}, {GIB:g} GiB: "


def rows() -> list[Row]:
    from ansible_collections.tenant.gpu.plugins.module_utils.box.shim import COPYING

    problem = refusal()
    if problem:
        raise SystemExit(f"NOT RUN: {problem}; nothing was measured")
    command = [sys.executable, __file__]
    told = subprocess.run(command, env={**os.environ, **COPYING}, stdout=subprocess.PIPE, check=True).stdout
    return [Row(name, tuple(ours), tuple(theirs), limit) for name, ours, theirs, limit in json.loads(told)]


def measure() -> list[Row]:
    torch.set_num_threads(2)
    with training() as it:
        it.settle()
        blocking = timed(it.save_torch)
        it.settle()
        first = timed(it.save_ours)
        found = [Row(f"{where()}the first save() of a process, held / torch.save", (first,), (blocking,))]

        def held(name: str, ours: Any, theirs: Any, limit: float | None = None, rounds: int = ROUNDS) -> None:
            found.append(compare(where() + name, ours, theirs, limit=limit, rounds=rounds, before=it.settle))

        # What fills the page cache takes half as long again from one round to the next.
        held("save(), held / torch.save, which does not sync", it.save_ours, it.save_torch, 0.10, 3 * ROUNDS)
        held("save(), held / torch.save and fsync", it.save_ours, it.save_torch_synced)
        if on_device():
            ours, theirs = until_device_goes_on(it.save_ours), until_device_goes_on(it.save_dcp_stager)
            held("save(), until the device goes on / torch.save", ours, it.save_torch)
            held("dcp.async_save with a kept stager, until the device goes on / torch.save", theirs, it.save_torch)
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


if __name__ == "__main__":
    print(json.dumps([astuple(row) for row in measure()]))
