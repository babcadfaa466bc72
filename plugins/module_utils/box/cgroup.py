# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Limits of the container, not of the host: CPU quota and OOM kills, cgroup v2 first, then v1."""

from __future__ import annotations

import os

_ROOT = "/sys/fs/cgroup"


def own_folders(root: str = _ROOT, membership: str = "/proc/self/cgroup") -> list[str]:
    """Folders of this process's v2 cgroup, innermost first, up to the root of the mount."""
    path = "/"
    try:
        with open(membership, encoding="utf-8") as stream:
            for line in stream:
                if line.startswith("0::"):
                    path = line[3:].strip() or "/"
    except OSError:
        pass
    folders = []
    while True:
        folders.append(os.path.join(root, path.lstrip("/")).rstrip("/"))
        if path in ("/", ""):
            return folders
        path = os.path.dirname(path)


def parse_cpu_max(text: str) -> float | None:
    """CPUs in a ``cpu.max`` line: quota over period; None for ``max``."""
    parts = text.split()
    if len(parts) != 2 or not parts[0].isdigit() or not parts[1].isdigit() or int(parts[1]) == 0:
        return None
    return int(parts[0]) / int(parts[1])


def cpu_quota(root: str = _ROOT, membership: str = "/proc/self/cgroup") -> float | None:
    """CPUs this process may use; the tightest limit on the way up. None when there is none."""
    limits = [parse_cpu_max(_read(os.path.join(folder, "cpu.max"))) for folder in own_folders(root, membership)]
    v1 = f"{_read(os.path.join(root, 'cpu/cpu.cfs_quota_us'))} {_read(os.path.join(root, 'cpu/cpu.cfs_period_us'))}"
    known = [limit for limit in limits + [parse_cpu_max(v1)] if limit]
    return min(known) if known else None


def threads() -> int:
    """Threads a numeric library should start: the quota rounded down, never more than the affinity, at least 1."""
    affinity = len(os.sched_getaffinity(0))
    quota = cpu_quota()
    return max(1, min(affinity, int(quota) if quota is not None else affinity))


def oom_kills() -> int | None:
    """Processes of this cgroup killed for memory so far; None where the counter is not readable."""
    for folder in own_folders():
        for name in ("memory.events", "memory/memory.oom_control"):
            for line in _read(os.path.join(folder, name)).splitlines():
                key, _blank, value = line.partition(" ")
                if key == "oom_kill" and value.strip().isdigit():
                    return int(value)
    return None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read().strip()
    except OSError:
        return ""
