# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a power cut leaves of the files of a test: bytes that were synced, under names whose folder was synced.

No test can cut the power. This one follows what would be left: it watches the syncs and the renames of the process.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_Place = tuple[int, int]


class LastingDisk:
    """Watches from its making until the end of the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        #: Names that were given to files, in order.
        self.given: list[str] = []
        #: Called with the path of each file that was synced, right after.
        self.after_sync: Callable[[str], object] = lambda _path: None
        self._synced: dict[_Place, tuple[int, bytes]] = {}
        self._lost: dict[str, str] = {}
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, self._syncing(getattr(os, name)))
        for name in ("replace", "rename"):
            monkeypatch.setattr(os, name, self._renaming(getattr(os, name)))

    def would_keep(self, path: str | Path) -> bool:
        """Whether the name leads to the bytes of now after a cut, and to those before or none at any earlier moment."""
        whole = os.path.realpath(path)
        return whole in self.given and not self.lost_names() and self._is_synced(whole)

    def lost_names(self) -> list[str]:
        """Names that a cut would take back: nobody has synced their folders since."""
        return sorted(self._lost)

    def _syncing(self, real: Callable[..., None]) -> Callable[[int], None]:
        def sync(descriptor: Any) -> None:
            real(descriptor)
            number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
            path = os.readlink(f"/proc/self/fd/{number}")
            if stat.S_ISDIR(os.fstat(number).st_mode):
                self._lost = {name: folder for name, folder in self._lost.items() if folder != path}
            else:
                self._synced[_place(path)] = _content(path)
                self.after_sync(path)

        return sync

    def _renaming(self, real: Callable[..., None]) -> Callable[..., None]:
        def rename(source: Any, target: Any) -> None:
            if os.path.isfile(source):
                assert self._is_synced(source), f"{target} is given to bytes that a power cut would lose"
            real(source, target)
            whole = os.path.realpath(target)
            self.given.append(whole)
            self._lost[whole] = os.path.dirname(whole)

        return rename

    def _is_synced(self, path: str) -> bool:
        return self._synced.get(_place(path)) == _content(path)


def _place(path: str) -> _Place:
    about = os.stat(path)
    return about.st_dev, about.st_ino


def _content(path: str) -> tuple[int, bytes]:
    """With the time of its last change: the number of a file that is gone is soon another one's."""
    return os.stat(path).st_mtime_ns, Path(path).read_bytes()
