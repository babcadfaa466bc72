# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Whether a process that was signalled is really stopped or dead: signals are only asked for."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

DEAD = {"Z", "X", "x"}
STOPPED = {"T", "t", *DEAD}


def thread_states(pid: int) -> set[str]:
    """The states of all threads of a process, as the kernel calls them; none when it is gone."""
    found, folder = set(), f"/proc/{pid}/task"
    threads: list[str] = []
    with contextlib.suppress(OSError):
        threads = os.listdir(folder)
    for thread in threads:
        with contextlib.suppress(OSError):
            found.add(Path(folder, thread, "stat").read_text().rpartition(")")[2].split()[0])
    return found
