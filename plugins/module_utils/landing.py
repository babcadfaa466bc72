# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Files on their way in: each is moved to its place as soon as it is proven, while others still arrive."""

from __future__ import annotations

import threading
from typing import Sequence

from . import settling
from .folder_landing import FolderLanding
from .progress import Progress
from .roster import Mismatch, RosterFile


class Landing:
    """What one pull has brought so far. Threads that bring files at the same time have a settler each."""

    def __init__(self, root: str, progress: Progress) -> None:
        self.root, self.staging, self.progress = root, settling.staging(root), progress
        self.settler = settling.Settler(root)
        self.folders = FolderLanding(self)
        # Why files did not come, as far as it was learned on the way.
        self.refused: dict[str, str] = {}
        self._settled: set[str] = set()
        self._counting = threading.Lock()

    def another_settler(self) -> settling.Settler:
        """For a thread of its own; to be closed by it."""
        return settling.Settler(self.root, self.settler.evidence)

    def settle_one(self, file: RosterFile, settler: settling.Settler | None = None) -> str:
        """Empty when the staged file was right and now is in its place, else what is wrong with it."""
        return self._note(file, (settler or self.settler).settle(file))

    def take(self, file: RosterFile, settler: settling.Settler) -> str:
        """The same for a file whose bytes have not been counted yet."""
        return self._note(file, settler.settle(file), file.bytes)

    def move(self, file: RosterFile, mode: int, source_name: str = "") -> str:
        """The same for a file whose bytes are known to be right."""
        return self._note(file, self.settler.move(file, mode, source_name))

    def _note(self, file: RosterFile, what: str, uncounted: int = 0) -> str:
        if not what:
            with self._counting:
                self._settled.add(file.path)
                self.refused.pop(file.path, None)
                if uncounted:
                    self.progress.moved(uncounted)
                self.progress.landed()
        return what

    def arrived(self, files: Sequence[RosterFile]) -> None:
        """``files`` were moved to their place together."""
        with self._counting:
            self._settled.update(file.path for file in files)
            for file in files if self.refused else ():
                self.refused.pop(file.path, None)
            self.progress.landed(len(files))

    def settle(self, files: Sequence[RosterFile]) -> tuple[list[str], list[Mismatch]]:
        """Settle the rest of ``files``, once nothing moves any more: (paths in place, what is wrong with others)."""
        self.settler.close()
        left = self.left(files)
        more, mismatches = settling.settle(self.root, left, self.settler.evidence)
        self._settled.update(more)
        self.progress.landed(len(more))
        wrong = [Mismatch(each.path, self._why(each)) for each in mismatches]
        self.refused.clear()
        return [file.path for file in files if file.path in self._settled], wrong

    def left(self, files: Sequence[RosterFile]) -> list[RosterFile]:
        """Those of ``files`` that are not in their place yet."""
        return [file for file in files if file.path not in self._settled]

    def _why(self, mismatch: Mismatch) -> str:
        learned = self.refused.get(mismatch.path, "")
        return learned if learned and mismatch.what == settling.MISSING else mismatch.what

    def refuse(self, file: RosterFile, what: str) -> None:
        self.refused[file.path] = what
