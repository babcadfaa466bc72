# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How much of a quota, of bytes or of files, is used on a mount whose file system does not tell it: small network disks
often report the pool behind them. Counted file by file, within a time: what is found by then is the least that is used.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import Callable, Iterator

from .names import printable

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


@dataclass(frozen=True)
class Files:
    """As :class:`Use`, of files and folders. ``largest``: names at the root of the mount with what lies below them."""

    cap: int
    used: int
    whole: bool
    largest: tuple[tuple[str, int], ...] = ()

    @property
    def free(self) -> int:
        return max(0, self.cap - self.used)


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
    return Use(cap_bytes, sum(sums.values()), whole, _largest(sums))


def counted_files(path: str, cap: int, within_s: float, clock: Callable[[], float] = time.monotonic) -> Files:
    """What is used of the ``cap`` files that the whole mount of ``path`` may hold; counted no further than the cap.

    :param clock: replaced in tests.
    """
    mount = mount_point(path)
    told = os.statvfs(mount)
    if 0 < told.f_files <= cap * _TELLS:
        return Files(cap, max(0, cap - told.f_favail), True)
    until = clock() + within_s
    counts: dict[str, int] = {}
    used, whole = 0, True
    for name, _entry in entries(mount):
        used += 1
        counts[name] = counts.get(name, 0) + 1
        if used >= cap or clock() > until:
            whole = False
            break
    return Files(cap, used, whole, _largest(counts))


def mount_point(path: str) -> str:
    """Where the mount begins on which ``path`` lies."""
    found = os.path.realpath(path)
    while not os.path.ismount(found):
        found = os.path.dirname(found)
    return found


def entries(root: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """(name at ``root``, entry) of all files and folders below it, links not followed, other mounts left out.

    :raises OSError: when ``root`` itself cannot be read; what lies below and cannot is passed over.
    """
    device = os.stat(root).st_dev
    folders = [("", root)]
    while folders:
        top, folder = folders.pop()
        for entry in _listed(folder, must=folder == root):
            name = top or entry.name
            yield name, entry
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_dev == device:
                    folders.append((name, entry.path))


def _listed(folder: str, must: bool) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            yield from found
    except OSError:
        if must:
            raise


def _sizes(path: str) -> Iterator[tuple[str, int]]:
    """(name at the root of the mount, bytes on the disk) of each file."""
    for name, entry in entries(path):
        with contextlib.suppress(OSError):
            if not entry.is_dir(follow_symlinks=False):
                yield name, on_disk(entry.stat(follow_symlinks=False))


def _largest(sums: dict[str, int]) -> tuple[tuple[str, int], ...]:
    most = sorted(sums.items(), key=lambda item: (-item[1], item[0]))[:_LARGEST]
    return tuple((printable(name), count) for name, count in most)


def on_disk(found: os.stat_result) -> int:
    """Some network disks report no blocks: then the length counts."""
    return found.st_blocks * 512 if found.st_blocks else found.st_size
