# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What lies on a disk, counted file by file within a time: what is found by then is the least there is.

Of a mount, how much of its quota is used: small network disks often report the pool behind them. Of a full disk, what
fills it."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from dataclasses import dataclass
from typing import Callable, Iterator

from . import wording

# A file system that reports no more than this beyond the cap tells the quota by itself.
_TELLS = 1.1
_LARGEST = 3
# A look at a full disk is not worth more than this; a cache of small files has millions of them.
MOST_ENTRIES = 200_000


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


@dataclass(frozen=True)
class Entry:
    """What lies at the root of a folder, with everything below it."""

    name: str
    bytes: int
    inodes: int


@dataclass(frozen=True)
class Hogs:
    """``whole``: everything was counted, else what was found by then."""

    whole: bool
    entries: tuple[Entry, ...]

    def by_bytes(self) -> str:
        """The largest in words: ``.cache 48.2 GB, old 3.1 GB``."""
        most = sorted(self.entries, key=lambda each: (-each.bytes, each.name))[:_LARGEST]
        return ", ".join(f"{each.name} {wording.size(each.bytes)}" for each in most)

    def by_inodes(self) -> str:
        """Those of the most files in words: ``.cache 180000 inodes``."""
        most = sorted(self.entries, key=lambda each: (-each.inodes, each.name))[:_LARGEST]
        return ", ".join(f"{each.name} {each.inodes} inodes" for each in most)


def hogs(
    path: str, within_s: float, opened: str = "", most: int = MOST_ENTRIES, clock: Callable[[], float] = time.monotonic
) -> Hogs:
    """What fills the folder ``path``. Hidden entries count as any other, and a link to a folder elsewhere on this disk
    with what it leads to: caches are often moved and linked.

    :param opened: the folder in it that is told by its own entries, not as one.
    :param clock: replaced in tests.
    """
    until = clock() + within_s
    sums: dict[str, list[int]] = {}
    several_names: set[int] = set()
    for count, (name, found) in enumerate(_found(path, opened, linked=True), 1):
        if count > most or clock() > until:
            return Hogs(False, _entries(sums))
        if not stat.S_ISDIR(found.st_mode) and found.st_nlink > 1:
            if found.st_ino in several_names:
                continue
            several_names.add(found.st_ino)
        total = sums.setdefault(name, [0, 0])
        total[0] += _on_disk(found)
        total[1] += 1
    return Hogs(True, _entries(sums))


def _entries(sums: dict[str, list[int]]) -> tuple[Entry, ...]:
    return tuple(Entry(name, *total) for name, total in sums.items())


def _sizes(path: str) -> Iterator[tuple[str, int]]:
    """(name at the root of the mount, bytes on the disk) of each file, links not followed, other mounts left out."""
    for name, found in _found(path):
        if not stat.S_ISDIR(found.st_mode):
            yield name, _on_disk(found)


def _found(path: str, opened: str = "", linked: bool = False) -> Iterator[tuple[str, os.stat_result]]:
    """(name at the root of ``path``, what it is) of each file and folder on the disk of ``path``.

    :param opened: the folder in it whose own entries are named.
    :param linked: links at its root lead to folders outside of it that count too.
    """
    device, inside = os.stat(path).st_dev, os.path.join(os.path.realpath(path), "")
    led_to: set[str] = set()
    for name, entry in _roots(path, opened):
        with contextlib.suppress(OSError):
            found = entry.stat(follow_symlinks=False)
            if found.st_dev != device:
                continue
            yield name, found
            if stat.S_ISDIR(found.st_mode):
                yield from ((name, each) for each in _below(entry.path, device))
                continue
            target = os.path.realpath(entry.path) if linked and stat.S_ISLNK(found.st_mode) else ""
            outside = target and not inside.startswith(os.path.join(target, "")) and not target.startswith(inside)
            if outside and target not in led_to and os.path.isdir(target) and os.stat(target).st_dev == device:
                led_to.add(target)
                yield from ((f"{name} -> {target}", each) for each in _below(target, device))


def _roots(path: str, opened: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    for entry in _listed(path):
        if entry.name == opened and entry.is_dir(follow_symlinks=False):
            yield from ((f"{opened}/{each.name}", each) for each in _listed(entry.path))
        else:
            yield entry.name, entry


def _listed(path: str) -> list[os.DirEntry[str]]:
    with os.scandir(path) as found:
        return list(found)


def _below(path: str, device: int) -> Iterator[os.stat_result]:
    """Each file and folder below ``path`` on this device, links not followed."""
    for parent, folders, names in os.walk(path):
        here = []
        for name in folders:
            with contextlib.suppress(OSError):
                found = os.lstat(os.path.join(parent, name))
                if found.st_dev == device:
                    here.append(name)
                    yield found
        folders[:] = here
        for name in names:
            with contextlib.suppress(OSError):
                yield os.lstat(os.path.join(parent, name))


def _on_disk(found: os.stat_result) -> int:
    """Some network disks report no blocks: then the length counts."""
    return found.st_blocks * 512 if found.st_blocks else found.st_size
