# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A cgroup whose memory the kernel limits, and Python scripts that run in it. Version 1 or 2, as the machine has it."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_COLLECTIONS = str(Path(__file__).resolve().parents[2] / "collections")
_OLD, _NEW = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
_NUMBERS = itertools.count()
# How much memory the group holds now, page cache and all: what remains of the limit for something else.
IDLE_TORCH = "import torch\nprint(open(usage).read())"


class NoMemoryGroup(Exception):
    """This machine makes none; the text says why."""


class MemoryGroup:
    def __init__(self, folder: Path, old: bool) -> None:
        self.folder, self._old = folder, old

    def limit(self, most_bytes: int) -> None:
        self._file("memory.limit_in_bytes", "memory.max").write_text(str(most_bytes))

    @property
    def usage(self) -> Path:
        return self._file("memory.usage_in_bytes", "memory.current")

    @property
    def peak(self) -> Path:
        """The most that it ever held, the page cache of the files that were read in it included."""
        return self._file("memory.max_usage_in_bytes", "memory.peak")

    @property
    def kills(self) -> int:
        """How many processes the kernel killed for memory."""
        lines = self._file("memory.oom_control", "memory.events").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))

    def run(self, script: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """``script`` in a Python of its own, which finds ``folder`` and ``usage`` as names."""
        enter = f"import os\nopen({str(self.folder / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
        names = f"usage, folder = {str(self.usage)!r}, {str(folder)!r}\n"
        environment = {"PYTHONPATH": _COLLECTIONS, "PATH": os.environ["PATH"]}
        command = [sys.executable, "-c", enter + names + script]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def _file(self, old: str, new: str) -> Path:
        return self.folder / (old if self._old else new)


@contextlib.contextmanager
def memory_group() -> Iterator[MemoryGroup]:
    """A new one, removed afterwards; NoMemoryGroup where that cannot be."""
    old = (_OLD / "memory.limit_in_bytes").exists()
    folder = (_OLD if old else _NEW) / f"tenant-load-{os.getpid()}-{next(_NUMBERS)}"
    try:
        folder.mkdir()
    except OSError as error:
        raise NoMemoryGroup(f"cannot make a memory cgroup: {error}") from error
    try:
        group = MemoryGroup(folder, old)
        if not (group.usage.exists() and group.peak.exists()):
            raise NoMemoryGroup("the memory controller is not delegated here, or keeps no peak")
        yield group
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


def idle_torch_bytes(folder: Path) -> int:
    """What a process that has imported torch and does nothing costs."""
    with memory_group() as group:
        return int(group.run(IDLE_TORCH, folder).stdout)
