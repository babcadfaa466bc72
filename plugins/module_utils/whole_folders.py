# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Folders that rsync can be asked for by one name, because a pull wants every file that was promised in them.

rsync compares each name that comes with each name that was asked for. Thousands of files in a few folders are then a
few names. What a box has there beyond its promise is noticed by its name before it has arrived, and from then on the
files of that folder are asked for one by one.
"""

from __future__ import annotations

from typing import Sequence

from .arrivals import Arrivals
from .landing import Landing
from .roster import RosterFile
from .transfer import SMALL_BYTES

# Fewer files are as soon named one by one.
_LEAST_FILES = 32
_MOST_SURPRISES = 3


class NotPromised(Exception):
    """Something that no roster names began to arrive from ``folder``."""

    def __init__(self, folder: str, name: str) -> None:
        super().__init__(f"{name} was not promised")
        self.folder = folder


def folder_of(file: RosterFile) -> str:
    return file.path.rpartition("/")[0]


class WholeFolders:
    """Which folders of a roster can be asked for whole; one for all attempts of a pull."""

    def __init__(self, roster: Sequence[RosterFile]) -> None:
        self._counts = _eligible(roster)
        self._surprises = 0

    def wanted(self, files: Sequence[RosterFile]) -> list[str]:
        """The folders of which ``files`` name everything that was promised."""
        counts: dict[str, int] = {}
        for file in files:
            folder = folder_of(file)
            counts[folder] = counts.get(folder, 0) + 1
        return [folder for folder, count in counts.items() if self._counts.get(folder) == count]

    def surprised(self, folder: str) -> None:
        """There is more in ``folder`` than was promised. A box that does that often is asked for files only."""
        self._counts.pop(folder, None)
        self._surprises += 1
        if self._surprises >= _MOST_SURPRISES:
            self.give_up()

    def give_up(self) -> None:
        """From now on every file is asked for by its name."""
        self._counts.clear()


def _eligible(roster: Sequence[RosterFile]) -> dict[str, int]:
    """Folders of many small files and nothing below them, with the number of their files."""
    counts: dict[str, int] = {}
    too_large, above = set(), {""}
    for file in roster:
        folder = folder_of(file)
        if folder not in counts:
            above.update(_parents(folder))
        counts[folder] = counts.get(folder, 0) + 1
        if file.bytes > SMALL_BYTES:
            too_large.add(folder)
    out = too_large | above
    return {folder: count for folder, count in counts.items() if count >= _LEAST_FILES and folder not in out}


def _parents(folder: str) -> list[str]:
    parts = folder.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


class FolderArrivals(Arrivals):
    """Reads the names that a run of rsync for whole folders prints. NotPromised at the first that was not promised."""

    def __init__(self, landing: Landing, files: Sequence[RosterFile]) -> None:
        super().__init__(landing, files)
        self._folders = {folder_of(file) for file in files}

    def line(self, line: bytes) -> None:
        if line not in self._files:
            name = line.decode("utf-8", "replace").rstrip("/")
            folder = name.rpartition("/")[0]
            if folder in self._folders:
                raise NotPromised(folder, name)
        super().line(line)
