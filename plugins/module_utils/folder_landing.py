# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Folders of small files that rsync brings whole: read while others arrive, and moved to their place by one rename.

As long as an rsync lives, a hostile box may have it replace whatever lies below the staging folder. It replaces a file
by renaming another one over it, and that changes the time of the folder. So what was read early counts only in a folder
whose time was well past by then, and is still the same once no rsync lives any more. All else is read then.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from typing import TYPE_CHECKING, Iterator, Mapping, Sequence, Tuple

from .box.names import UnsafeName
from .roster import RosterFile
from .settling import TEMPORARY, check_files, check_share, make_executable, name_of, open_folder

if TYPE_CHECKING:
    from .landing import Landing

# What a folder is as long as nothing is put into it: inode, mtime_ns.
_Stamp = Tuple[int, int]

# A change may get the time of the tick that it happens in; ticks last 10 ms at most.
_WELL_PAST_NS = 30_000_000
_SECOND_NS = 1_000_000_000


class FolderLanding:
    """What is known of the folders of one pull."""

    def __init__(self, landing: Landing) -> None:
        self._landing = landing
        self._proven: dict[str, _Stamp] = {}
        # Two that read at once would only take the interpreter from each other.
        self._reading = threading.Lock()

    def look(self, folder: str, files: Sequence[RosterFile]) -> bool:
        """Read ``files``, all of ``folder``, that rsync has gone on from; False while it is too early for that."""
        stamp = self._stamp(folder)
        if stamp is None:
            return True
        if not self._is_well_past(stamp):
            return False
        with self._reading:
            if not any(check_share(self._landing.staging, files)) and self._holds_only(folder, files):
                self._proven[folder] = stamp
        return True

    def take(self, folders: Mapping[str, Sequence[RosterFile]]) -> None:
        """Once no rsync lives: move what is right of the files of ``folders``, folder by folder."""
        self._landing.settler.close()
        changed = {folder for folder in folders if self._proven.get(folder, ()) != self._stamp(folder)}
        unread = [file for folder in folders if folder in changed for file in folders[folder]]
        wrong = {mismatch.path for mismatch in check_files(self._landing.staging, unread)}
        self._proven.clear()
        for folder, group in folders.items():
            right = [file for file in group if file.path not in wrong] if wrong else group
            is_whole = len(right) == len(group) and (folder not in changed or self._holds_only(folder, group))
            if is_whole and self._move_whole(folder, group):
                self._landing.arrived(group)
                continue
            for file in right:
                self._landing.settle_one(file)

    def _stamp(self, folder: str) -> _Stamp | None:
        """None for what is not there, and for a link: its time says nothing of the folder that it leads to."""
        try:
            facts = os.lstat(os.path.join(self._landing.staging, folder))
        except OSError:
            return None
        return (facts.st_ino, facts.st_mtime_ns) if stat.S_ISDIR(facts.st_mode) else None

    def _holds_only(self, folder: str, files: Sequence[RosterFile]) -> bool:
        try:
            with self._opened(self._landing.staging, folder) as inside:
                return set(os.listdir(inside)) == {name_of(file) for file in files}
        except (OSError, UnsafeName):
            return False

    def _is_well_past(self, stamp: _Stamp) -> bool:
        """By the clock of the filesystem, which must tell more than seconds."""
        clock = os.path.join(self._landing.staging, TEMPORARY)
        try:
            os.utime(clock)
            now = os.lstat(clock).st_mtime_ns
        except OSError:
            return False
        return stamp[1] % _SECOND_NS != 0 and now - stamp[1] >= _WELL_PAST_NS

    def _move_whole(self, folder: str, files: Sequence[RosterFile]) -> bool:
        """False where that cannot be: something is already in its place."""
        above, _slash, name = folder.rpartition("/")
        staging, root = self._landing.staging, self._landing.root
        executable = [name_of(file) for file in files if file.executable]
        try:
            if executable:
                with self._opened(staging, folder) as inside:
                    for each in executable:
                        make_executable(inside, each)
            with self._opened(staging, above) as source, self._opened(root, above, True) as target:
                # Onto an empty folder it goes, onto anything else it does not.
                os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
        except (OSError, UnsafeName):
            return False
        return True

    @staticmethod
    @contextlib.contextmanager
    def _opened(root: str, parent: str, make: bool = False) -> Iterator[int]:
        """A descriptor of ``root/parent``, with what :func:`open_folder` raises."""
        descriptor = open_folder(root, parent, make)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
