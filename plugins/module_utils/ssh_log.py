# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What ssh itself has to say, apart from what its far end says.

Whatever a box prints comes out at ssh's standard error, so nothing there proves anything. ``ssh -E`` puts ssh's own
messages into a file, which no box writes to. Two of them quote the far end; nothing behind such a one is believed.
"""

from __future__ import annotations

import tempfile
from typing import Any, Iterator

_READ = 16 * 1024
_QUOTES_THE_FAR_END = ("Received disconnect from", "channel ")
_UNKNOWN_KEY = "Host key verification failed."
_DENIED = "Permission denied ("


class SshLog:
    """A file for the messages of one ssh."""

    def __init__(self) -> None:
        self._file = tempfile.NamedTemporaryFile(prefix="tenant-ssh-")  # noqa: SIM115 (__exit__ closes it)

    def __enter__(self) -> SshLog:
        return self

    def __exit__(self, *_exception: Any) -> None:
        self._file.close()

    @property
    def path(self) -> str:
        return self._file.name

    def read(self) -> bytes:
        """The beginning of it: who was connected to is said first."""
        self._file.seek(0)
        return self._file.read(_READ)


def refuses_key(log: bytes) -> bool:
    """Whether ssh ended because the box's host key is not the pinned one. No exit status of rsync tells surely."""
    return _UNKNOWN_KEY in _own_lines(log)


def was_denied(log: bytes) -> bool:
    """Whether the box let nobody in with what ssh had to offer."""
    return any(_DENIED in line for line in _own_lines(log))


def _own_lines(log: bytes) -> Iterator[str]:
    """The lines of ssh's own up to the first that quotes the far end, whose words may hold line ends."""
    for line in log.decode("utf-8", "replace").splitlines():
        if line.startswith(_QUOTES_THE_FAR_END):
            return
        yield line.strip()
