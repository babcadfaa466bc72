# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Limits and strain of the container, not of the host: CPU quota, memory, OOM kills, pressure; cgroup v2, then v1."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

_ROOT = "/sys/fs/cgroup"
_MEMBERSHIP = "/proc/self/cgroup"
_PRESSURE = "/proc/pressure"
# What v1 writes for "no limit" is the largest number of whole pages.
_NO_LIMIT = 1 << 60
_WHOLE = re.compile(r"[0-9]+\Z")
_AVG10 = re.compile(r"^(some|full) avg10=([0-9]+(?:\.[0-9]+)?)", re.MULTILINE)


@dataclass(frozen=True)
class Memory:
    """Bytes. ``used`` is without the page cache that the kernel gives back by itself; None where it does not say."""

    used: int
    limit: int | None = None
    peak: int | None = None
    cache: int | None = None
    oom_kills: int | None = None

    def as_dict(self) -> dict[str, Any]:
        names = {"used": "used_bytes", "limit": "limit_bytes", "peak": "peak_bytes", "cache": "cache_bytes"}
        return {shown: getattr(self, name) for name, shown in names.items()}


def own_folders(root: str = _ROOT, membership: str = _MEMBERSHIP) -> list[str]:
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


def cpu_quota(root: str = _ROOT, membership: str = _MEMBERSHIP) -> float | None:
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


def oom_kills(root: str = _ROOT, membership: str = _MEMBERSHIP) -> int | None:
    """Processes of this cgroup killed for memory so far; None where the counter is not readable."""
    places = [(folder, "memory.events") for folder in own_folders(root, membership)]
    places += [(folder, "memory.oom_control") for folder in _v1_memory_folders(root, membership)]
    for folder, name in places:
        count = _counter(_read(os.path.join(folder, name)), "oom_kill")
        if count is not None:
            return count
    return None


def memory(root: str = _ROOT, membership: str = _MEMBERSHIP) -> Memory | None:
    """What this cgroup uses and may use; the tightest limit on the way up. None where it is not told."""
    v2, v1 = own_folders(root, membership), _v1_memory_folders(root, membership)
    own = next((folder for folder in v2 if _number(folder, "memory.current") is not None), "")
    if own:
        limits = [_number(folder, "memory.max") for folder in v2]
        current, peak = _number(own, "memory.current"), _number(own, "memory.peak")
        cache = _counter(_read(os.path.join(own, "memory.stat")), "inactive_file")
    else:
        own = next((folder for folder in v1 if _number(folder, "memory.usage_in_bytes") is not None), "")
        limits = [_number(folder, "memory.limit_in_bytes") for folder in v1]
        current, peak = _number(own, "memory.usage_in_bytes"), _number(own, "memory.max_usage_in_bytes")
        cache = _counter(_read(os.path.join(own, "memory.stat")), "total_inactive_file")
    if current is None:
        return None
    known = [limit for limit in limits if limit is not None and limit < _NO_LIMIT]
    used = max(0, current - (cache or 0))
    return Memory(used, min(known, default=None), peak, cache, oom_kills(root, membership))


def pressure(root: str = _ROOT, membership: str = _MEMBERSHIP, proc: str = _PRESSURE) -> dict[str, Any] | None:
    """Per cent of the last ten seconds in which some or all processes waited for memory, io or cpu.

    ``scope`` is ``container``, or ``host`` where only the whole machine is told of: then neighbours are in it.
    """
    for folder in own_folders(root, membership):
        found = _pressures(folder, "{}.pressure")
        if found:
            return {"scope": "container", **found}
    found = _pressures(proc, "{}")
    return {"scope": "host", **found} if found else None


def _pressures(folder: str, form: str) -> dict[str, dict[str, float]]:
    found = {}
    for what in ("memory", "io", "cpu"):
        lines = _AVG10.findall(_read(os.path.join(folder, form.format(what))))
        if lines:
            found[what] = {kind: float(share) for kind, share in lines}
    return found


def _v1_memory_folders(root: str, membership: str) -> list[str]:
    """Folders of the v1 memory controller, innermost first. In a container the mount itself may be the innermost."""
    path = ""
    for line in _read(membership).splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3 and "memory" in parts[1].split(","):
            path = parts[2].strip("/")
    folders = []
    while path:
        folders.append(os.path.join(root, "memory", path))
        path = os.path.dirname(path)
    return [folder for folder in [*folders, os.path.join(root, "memory")] if os.path.isdir(folder)]


def _counter(text: str, name: str) -> int | None:
    """The number behind ``name`` in lines of ``name number``."""
    for line in text.splitlines():
        key, _blank, value = line.partition(" ")
        if key == name and _WHOLE.match(value.strip()):
            return int(value)
    return None


def _number(folder: str, name: str) -> int | None:
    text = _read(os.path.join(folder, name))
    return int(text) if _WHOLE.match(text) else None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read().strip()
    except OSError:
        return ""
