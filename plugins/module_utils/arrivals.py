# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Small files that rsync pulls: each is hashed and moved to its place while the next ones arrive.

rsync names a file when it begins with it and works on one after the other, so each name says that the file named before
it is there. A box can have names printed too early. But rsync writes a file under another name and renames it once it
is whole, so what is found has no writer any more. Whatever is not found is read when it settles.
"""

from __future__ import annotations

from typing import Sequence

from .landing import Landing
from .roster import RosterFile


class Arrivals:
    """Reads the names that one run of rsync for ``files`` prints."""

    def __init__(self, landing: Landing, files: Sequence[RosterFile]) -> None:
        self._landing, self._settler = landing, landing.another_settler()
        # Thousands of lines come, and none needs to be decoded to be found.
        self._files = {file.path.encode("utf-8"): file for file in files}
        self._begun: RosterFile | None = None

    def start(self) -> None:
        """Nothing to do: there is time between two lines."""

    def line(self, line: bytes) -> None:
        """rsync names a file when it begins with it, and prints other things too."""
        file = self._files.get(line)
        if file is not None:
            self._take_begun()
            self._begun = file

    def end(self) -> None:
        """rsync has ended."""
        self._take_begun()
        self._settler.close()

    def _take_begun(self) -> None:
        file, self._begun = self._begun, None
        if file is not None:
            self._landing.take(file, self._settler)
