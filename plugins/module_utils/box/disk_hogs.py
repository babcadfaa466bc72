# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What fills a disk, counted file by file within a time: what is found by then is the least there is."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from dataclasses import dataclass
from typing import Callable, Iterator

from . import wording
from .disk_use import entries, on_disk
from .names import printable

_LARGEST = 3
# A look at a full disk is not worth more than this; a cache of small files has millions of them.
MOST_ENTRIES = 200_000


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
        return ", ".join(f"{printable(each.name)} {wording.size(each.bytes)}" for each in most)

    def by_inodes(self) -> str:
        """Those of the most files in words: ``.cache 180000 inodes``."""
        most = sorted(self.entries, key=lambda each: (-each.inodes, each.name))[:_LARGEST]
        return ", ".join(f"{printable(each.name)} {each.inodes} inodes" for each in most)


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
    for count, (name, found) in enumerate(_found(os.path.normpath(path), opened), 1):
        if count > most or clock() > until:
            return Hogs(False, _entries(sums))
        if not stat.S_ISDIR(found.st_mode) and found.st_nlink > 1:
            if found.st_ino in several_names:
                continue
            several_names.add(found.st_ino)
        total = sums.setdefault(name, [0, 0])
        total[0] += on_disk(found)
        total[1] += 1
    return Hogs(True, _entries(sums))


def _entries(sums: dict[str, list[int]]) -> tuple[Entry, ...]:
    return tuple(Entry(name, *total) for name, total in sums.items())


def _found(path: str, opened: str) -> Iterator[tuple[str, os.stat_result]]:
    """(name at the root of ``path``, what it is) of each file and folder on the disk of ``path``, and of the folders
    outside of it that links at its root lead to."""
    device, inside = os.stat(path).st_dev, os.path.join(os.path.realpath(path), "")
    led_to: set[str] = set()
    for top, entry in entries(path):
        parts = os.path.relpath(entry.path, path).split(os.sep) if top == opened else [top]
        with contextlib.suppress(OSError):
            found = entry.stat(follow_symlinks=False)
            if found.st_dev != device or (parts == [opened] and stat.S_ISDIR(found.st_mode)):
                continue
            name = "/".join(parts[:2])
            yield name, found
            target = os.path.realpath(entry.path) if stat.S_ISLNK(found.st_mode) else ""
            at_root = os.path.dirname(entry.path) == path or len(parts) == 2
            outside = target and not inside.startswith(os.path.join(target, "")) and not target.startswith(inside)
            if at_root and outside and target not in led_to and os.path.isdir(target):
                led_to.add(target)
                yield from _below(target, device, f"{name} -> {target}")


def _below(path: str, device: int, name: str) -> Iterator[tuple[str, os.stat_result]]:
    if os.stat(path).st_dev != device:
        return
    for _top, entry in entries(path):
        with contextlib.suppress(OSError):
            found = entry.stat(follow_symlinks=False)
            if found.st_dev == device:
                yield name, found
