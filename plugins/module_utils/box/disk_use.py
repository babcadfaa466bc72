# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How much of a quota is used on a mount whose file system does not tell it: small network disks often report the pool
behind them. Counted file by file, within a time: what is found by then is the least that is used."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import Callable, Iterator

# A file system that reports no more than this beyond the cap tells the quota by itself.
_TELLS = 1.1
_LARGEST = 3


@dataclass(frozen=True)
class Use:
    """``whole``: everything was counted. ``largest``: names at the root of the mount with their bytes."""

    cap_bytes: int
    used_bytes: int
    whole: bool
    largest: tuple[tuple[str, int], ...] = ()

    @property
    def free_bytes(self) -> int:
        return max(0, self.cap_bytes - self.used_bytes)


def measured_use(path: str, cap_bytes: int, within_s: float, clock: Callable[[], float] = time.monotonic) -> Use:
    """What is used of ``cap_bytes`` on the mount at ``path``.

    :param clock: replaced in tests.
    """
    told = os.statvfs(path)
    total = told.f_blocks * told.f_frsize
    if 0 < total <= cap_bytes * _TELLS:
        return Use(cap_bytes, max(0, cap_bytes - told.f_bavail * told.f_frsize), True)
    until = clock() + within_s
    sums: dict[str, int] = {}
    whole = True
    for name, size in _sizes(path):
        sums[name] = sums.get(name, 0) + size
        if clock() > until:
            whole = False
            break
    largest = sorted(sums.items(), key=lambda item: (-item[1], item[0]))[:_LARGEST]
    return Use(cap_bytes, sum(sums.values()), whole, tuple(largest))


def _sizes(path: str) -> Iterator[tuple[str, int]]:
    """(name at the root of the mount, bytes on the disk) of each file, links not followed, other mounts left out."""
    device = os.stat(path).st_dev
    for entry in _entries(path):
        with contextlib.suppress(OSError):
            if not entry.is_dir(follow_symlinks=False):
                yield entry.name, _on_disk(entry.stat(follow_symlinks=False))
                continue
            for parent, folders, names in os.walk(entry.path):
                folders[:] = [name for name in folders if _device(os.path.join(parent, name)) == device]
                for name in names:
                    with contextlib.suppress(OSError):
                        yield entry.name, _on_disk(os.lstat(os.path.join(parent, name)))


def _entries(path: str) -> list[os.DirEntry[str]]:
    with os.scandir(path) as found:
        return list(found)


def _device(path: str) -> int:
    try:
        return os.lstat(path).st_dev
    except OSError:
        return -1


def _on_disk(stat: os.stat_result) -> int:
    """Some network disks report no blocks: then the length counts."""
    return stat.st_blocks * 512 if stat.st_blocks else stat.st_size
