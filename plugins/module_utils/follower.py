# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Hashing the large files that rsync writes, while it writes them.

rsync writes every file from beginning to end into a new inode in its temporary folder, never goes back in it, and
renames it when it is whole. So the bytes of such an inode are final as soon as they are there, and their hash holds for
the file that has this inode, size and time in the end. Whatever is not recognised here is read again when it settles.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import os
import stat
import threading
from dataclasses import dataclass, field
from typing import Any, Sequence

from .box.hashing import identity
from .box.names import UnsafeName
from .landing import Landing
from .roster import RosterFile
from .settling import MISSING, name_of

# From this size on a file is hashed as it grows, and continued where it was cut.
LARGE = 1024 * 1024
_CHUNK = 256 * 1024
_TURN = 64 * 1024 * 1024
_BATCH = 256
_PAUSE_S = 0.01
_MOST_LOOKS = 1000


@dataclass
class _Growing:
    """One inode in rsync's temporary folder."""

    descriptor: int
    hasher: Any = field(default_factory=hashlib.sha256)
    position: int = 0


class Follower(threading.Thread):
    """Follows one run of rsync that pulls ``files``; call :meth:`line` for each line that it prints."""

    def __init__(self, landing: Landing, files: Sequence[RosterFile], temporary: str) -> None:
        super().__init__(name="follower", daemon=True)
        self._landing, self._temporary = landing, temporary
        self._files = {file.path: file for file in files}
        self._named: collections.deque[tuple[str, int]] = collections.deque()
        self._growing: dict[int, _Growing] = {}
        self._buffer = bytearray(_CHUNK)
        self._ended = threading.Event()

    def line(self, line: bytes) -> None:
        """rsync names a file when it is at it, and prints other things too."""
        path = line.decode("utf-8", "replace")
        if path in self._files:
            self._named.append((path, 0))

    def end(self) -> None:
        """rsync has ended: finish what is there."""
        self._ended.set()
        self.join()

    def run(self) -> None:
        try:
            while not self._ended.is_set():
                if not self._turn():
                    self._ended.wait(_PAUSE_S)
            while self._turn():
                pass
        finally:
            for growing in self._growing.values():
                os.close(growing.descriptor)

    def _turn(self) -> bool:
        """Do some of what can be done; whether there was anything."""
        grew = self._hash_growing()
        return self._take_named() or grew

    # --- large files ----------------------------------------------------------------------------------------------

    def _hash_growing(self) -> bool:
        present = self._look()
        read = 0
        for inode, growing in list(self._growing.items()):
            # Looked for before it is read: what was renamed by then is whole, so its end is the end.
            whole = inode not in present
            count = self._read(growing)
            read += count
            if whole and count < _TURN:
                facts = os.fstat(growing.descriptor)
                if growing.position == facts.st_size:
                    self._landing.settler.evidence[identity(facts)] = growing.hasher.hexdigest()
                os.close(growing.descriptor)
                del self._growing[inode]
        self._landing.progress.moved(read)
        return read > 0

    def _look(self) -> set[int]:
        """The inodes that rsync is writing; new ones among them are opened."""
        present = set()
        with contextlib.suppress(OSError), os.scandir(self._temporary) as entries:
            for entry in entries:
                present.add(entry.inode())
                if entry.inode() not in self._growing:
                    self._open(entry)
        return present

    def _open(self, entry: os.DirEntry[str]) -> None:
        """Opening it keeps the inode's number from being given to another file."""
        with contextlib.suppress(OSError):
            facts = entry.stat(follow_symlinks=False)
            if not stat.S_ISREG(facts.st_mode) or facts.st_size < _CHUNK:
                return
            descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            if os.fstat(descriptor).st_ino == entry.inode():
                self._growing[entry.inode()] = _Growing(descriptor)
            else:
                os.close(descriptor)

    def _read(self, growing: _Growing) -> int:
        read = 0
        view = memoryview(self._buffer)
        while read < _TURN:
            count = os.preadv(growing.descriptor, [self._buffer], growing.position)
            if not count:
                break
            growing.hasher.update(view[:count])
            growing.position += count
            read += count
        return read

    # --- files that are whole -------------------------------------------------------------------------------------

    def _take_named(self) -> bool:
        """Settle what has arrived of the files that were named."""
        settled = False
        for _unused in range(min(_BATCH, len(self._named))):
            path, looks = self._named.popleft()
            file = self._files[path]
            what = self._settle(file)
            settled |= not what
            if what == MISSING and looks < _MOST_LOOKS:
                self._named.append((path, looks + 1))
        return settled

    def _settle(self, file: RosterFile) -> str:
        try:
            folder = self._landing.settler.enter(file)
            facts = os.stat(name_of(file), dir_fd=folder, follow_symlinks=False)
        except (OSError, UnsafeName):
            return MISSING
        if identity(facts) in self._landing.settler.evidence:
            return self._landing.settle_one(file)
        return MISSING if facts.st_ino in self._growing else "was not followed"
