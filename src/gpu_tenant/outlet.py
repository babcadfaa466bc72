# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Standard output and standard error that outlive whoever reads them.

A pipe whose reader has left and a terminal that hung up take no more words. Neither may end the work on a rented box
or leave a traceback behind: what is written there from then on is dropped.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Any, TextIO, cast

_READER_LEFT = (errno.EPIPE, errno.ECONNRESET)
# Only of a terminal: of a file this is a broken disk, and nobody may believe that it was written.
_HUNG_UP = (errno.EIO, errno.ENXIO)


class Outlet(io.RawIOBase):
    """Writes whole pieces to a descriptor, which it does not own. Without a buffer of its own there is nothing that a
    signal handler could find half-written."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._gone = (*_READER_LEFT, *_HUNG_UP) if os.isatty(descriptor) else _READER_LEFT
        self.is_gone = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        while left and not self.is_gone:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:
                # A child that shares the terminal (ssh does so) made it one that does not wait.
                select.select([], [self._descriptor], [])
            except OSError as error:
                if error.errno not in self._gone:
                    raise
                self.is_gone = True
        return size


def lasting(stream: TextIO) -> TextIO:
    """A text stream to the same place that never fails because nobody reads it any more."""
    raw = cast(Any, Outlet(stream.fileno()))
    return io.TextIOWrapper(raw, encoding=stream.encoding, errors=stream.errors, write_through=True)


def is_gone(stream: TextIO) -> bool:
    """Whether a lasting stream has lost its reader, so that looking on has no purpose."""
    raw = getattr(stream, "buffer", None)
    return isinstance(raw, Outlet) and raw.is_gone


def install() -> None:
    """Make this process's output and error lasting. Those it was started without lead nowhere."""
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        # Else the next file that is opened, a lock or a record, would be what a child takes for its output.
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(descriptor, True)
        os.close(descriptor)
        sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name) or open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - likewise
        setattr(sys, name, lasting(stream))
