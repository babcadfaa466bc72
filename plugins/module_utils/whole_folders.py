# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Folders that rsync can be asked for by one name, because a pull wants every file that was promised in them.

rsync compares each name that comes with each name that was asked for. Thousands of files in a few folders are then a
few names. What a box has there beyond its promise is noticed by its name before it has arrived, and from then on the
files of that folder are asked for one by one.
"""

from __future__ import annotations

import collections
import time
from typing import Mapping, Sequence

from .landing import Landing
from .roster import RosterFile
from .transfer import SMALL_BYTES

# Fewer files are as soon named one by one.
_LEAST_FILES = 32
_MOST_SURPRISES = 3
# A folder that is still too fresh to be read is looked at again so soon.
_BETWEEN_LOOKS_S = 0.01


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
        self.surprises = 0

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
        self.surprises += 1
        if self.surprises >= _MOST_SURPRISES:
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


class FolderArrivals:
    """Reads the names that a run of rsync for whole folders prints. NotPromised at the first that was not promised.

    rsync takes one folder after the other. Those that it has gone on from are read while the next ones arrive.
    """

    def __init__(self, landing: Landing, folders: Mapping[str, Sequence[RosterFile]]) -> None:
        """``folders`` maps each to the files that were promised in it."""
        self._landing, self._inside = landing, folders
        # Thousands of lines come, and none needs to be decoded to be found.
        self._files = {file.path.encode("utf-8"): file for group in folders.values() for file in group}
        self._passed: collections.deque[str] = collections.deque()
        # A box could have the names of two folders printed in turn for ever: each is read early but once.
        self._gone_from: set[str] = set()
        self._folder: str | None = None
        self._next_look = 0.0

    def start(self) -> None:
        """Nothing to do: there is time between two lines."""

    def line(self, line: bytes) -> None:
        """rsync names a file when it begins with it, and prints other things too."""
        file = self._files.get(line)
        if file is None:
            self._refuse_stranger(line)
            return
        self._landing.progress.moved(file.bytes)
        folder = folder_of(file)
        if folder != self._folder:
            self._leave()
            self._folder = folder
        if self._passed and time.monotonic() >= self._next_look:
            self._look_back()

    def _leave(self) -> None:
        if self._folder is not None and self._folder not in self._gone_from:
            self._gone_from.add(self._folder)
            self._passed.append(self._folder)

    def end(self) -> None:
        """Whatever was not read yet is read once no run of rsync lives any more."""

    def _look_back(self) -> None:
        while self._passed and self._landing.folders.look(self._passed[0], self._inside[self._passed[0]]):
            self._passed.popleft()
        if self._passed:
            self._next_look = time.monotonic() + _BETWEEN_LOOKS_S

    def _refuse_stranger(self, line: bytes) -> None:
        name = line.decode("utf-8", "replace").rstrip("/")
        folder = name.rpartition("/")[0]
        if folder in self._inside:
            raise NotPromised(folder, name)
