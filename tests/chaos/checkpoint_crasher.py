# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Runs trainings that kill themselves with SIGKILL at a chosen file event of the checkpoint helper.

A program for tests, not a test. It reads jobs from stdin, one JSON object a line, forks for each (PyTorch is imported
once, so that hundreds of real kills take seconds) and answers with one line. A job: ``program`` (tiny or digits),
``arguments``, ``environ``, ``events`` (a file that lists what happened) and ``kill`` (null, or the number of the event
before which to die, or ``[name, n]`` for the n-th event of that name).
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy
import tenant_checkpoint
import torch
import torch._dynamo  # the first optimizer imports it, for more than a second: here it is paid for once

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
JOB_LIMIT_S = 900
_real_os = os


class Events:
    """Writes down each file event before it happens, and dies where the job says."""

    def __init__(self, path: str, kill: Any) -> None:
        self._log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._kill = kill
        self._total = 0
        self._of_name: dict[str, int] = {}

    def note(self, text: str) -> None:
        os.write(self._log, f"# {text}\n".encode())

    def happens(self, name: str) -> None:
        self._of_name[name] = self._of_name.get(name, 0) + 1
        if self._kill == self._total or self._kill == [name, self._of_name[name]]:
            self.note(f"killed before event {self._total} {name}")
            os.kill(os.getpid(), signal.SIGKILL)
        self._total += 1
        os.write(self._log, f"{name}\n".encode())

    def write(self, name: str, write: Any, data: bytes) -> int:
        """A write is two events: before it, and when half of it is on the disk."""
        self.happens(name)
        half = len(data) // 2
        done = write(data[:half]) if half else 0
        self.happens(f"half-{name}")
        while done < len(data):
            done += write(data[done:])
        return len(data)


class WatchedFile:
    def __init__(self, path: str, mode: str, events: Events) -> None:
        events.happens("open")
        # Unbuffered where it writes: what the helper has written is on the way to the disk.
        self._file = open(path, mode, buffering=0 if "w" in mode else -1)  # noqa: SIM115 - the helper closes it
        self._events = events

    def __enter__(self) -> WatchedFile:
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()

    def write(self, data: Any) -> int:
        return self._events.write("write", self._file.write, bytes(data))

    def __getattr__(self, name: str) -> Any:
        """Reading, seeking and the like are no events."""
        return getattr(self._file, name)


class WatchedOs:
    """``os`` as the checkpoint helper sees it."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def __getattr__(self, name: str) -> Any:
        return getattr(_real_os, name)

    def _watched(self, name: str, *arguments: Any) -> Any:
        self._events.happens(name)
        return getattr(_real_os, name)(*arguments)

    def fsync(self, descriptor: int) -> None:
        self._watched("fsync", descriptor)

    def replace(self, source: str, target: str) -> None:
        self._watched("replace", source, target)

    def unlink(self, path: str) -> None:
        self._watched("unlink", path)

    def mkdir(self, path: str) -> None:
        self._watched("mkdir", path)

    def rename(self, source: str, target: str) -> None:
        self._watched("rename", source, target)

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        self._events.happens("open-folder" if flags & _real_os.O_DIRECTORY else "open-metrics")
        return _real_os.open(path, flags, mode)

    def write(self, descriptor: int, data: bytes) -> int:
        return self._events.write("line", lambda part: _real_os.write(descriptor, part), data)


def watch(events: Events) -> None:
    tenant_checkpoint.os = WatchedOs(events)
    tenant_checkpoint.open = lambda path, mode: WatchedFile(path, mode, events)
    after_write = tenant_checkpoint.Checkpointer._after_write

    def acknowledged(self: Any, path: str, step: int, best: int | None) -> None:
        events.note(f"saved {step}")
        after_write(self, path, step, best)

    tenant_checkpoint.Checkpointer._after_write = acknowledged


def tiny(steps: str) -> int:
    """A training that uses every source of chance, of milliseconds per step; saves after step 1 and every second.

    What each save costs is noted whether or not it is news, so that a busy machine changes nothing of the events.
    """
    tenant_checkpoint.Attempts.note_cost = tenant_checkpoint.Attempts.note
    torch.set_num_threads(1)
    random.seed(1)
    numpy.random.seed(2)
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [4, 7])
    data = torch.arange(40, dtype=torch.float32).reshape(10, 4) / 40
    batches = tenant_checkpoint.ShuffledBatches(len(data), 4, seed=5)
    objects = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    checkpoints = tenant_checkpoint.Checkpointer(objects, batches, int(steps), longest_interval_s=1e6)
    checkpoints.load_latest()
    while checkpoints.step < int(steps):
        for indices in batches:
            noise = random.random() + numpy.random.rand() + torch.rand(()).item()
            loss = model(data[indices] + noise).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            checkpoints.after_step(loss=loss)
            if checkpoints.step % 2 == 0:
                checkpoints.save()
    checkpoints.save(wait=True)
    return 0


def digits(*arguments: str) -> int:
    sys.path.insert(0, str(EXAMPLE))
    exit_code: int = importlib.import_module("train").main(list(arguments))
    return exit_code


def child(job: dict[str, Any]) -> int:
    signal.alarm(JOB_LIMIT_S)
    os.dup2(os.open(job["events"] + ".out", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), 1)
    os.environ.update(job["environ"])
    watch(Events(job["events"], job["kill"]))
    return {"tiny": tiny, "digits": digits}[job["program"]](*job["arguments"])


def main() -> None:
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            exit_code = 70
            try:
                exit_code = child(json.loads(line))
            except Exception:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(exit_code)
        _pid, status = os.waitpid(process, 0)
        print(json.dumps({"signal": status & 0x7F, "exit": status >> 8}), flush=True)


if __name__ == "__main__":
    main()
