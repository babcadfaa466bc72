# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How far a transfer is, told at most once a second. A courtesy to whoever watches; nothing is decided by it."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict

Report = Callable[[Dict[str, Any]], Any]

_EVERY_S = 1.0
_BUFFERS = 4 * 1024 * 1024


class Progress:
    """Counts of one transfer. ``files`` and ``bytes`` are all that is to move."""

    def __init__(self, report: Report | None, files: int, total: int, clock: Callable[[], float] = time.monotonic):
        self._report, self._clock = report, clock
        self._files, self._bytes = files, total
        self._files_done = self._bytes_done = 0
        self._begun, self._base = clock(), 0
        self._told = clock()
        self._moved = self._proven = 0

    def begin(self, files_done: int, bytes_done: int) -> None:
        """An attempt begins with this much already there; the rate is that of the attempt."""
        self._proven, self._moved = self.beyond_buffers, 0
        self._files_done, self._bytes_done = files_done, bytes_done
        self._begun, self._base = self._clock(), bytes_done

    def found(self, count: int) -> None:
        """Bytes that an earlier attempt brought."""
        self._bytes_done += count
        self._base += count

    def moved(self, count: int) -> None:
        self._bytes_done += count
        self._moved += count
        self._tell_in_time()

    @property
    def beyond_buffers(self) -> int:
        """Bytes that must have reached the other side in all attempts: more than the buffers on the way can hold."""
        return self._proven + max(0, self._moved - _BUFFERS)

    def landed(self, files: int = 1) -> None:
        self._files_done += files
        self._tell_in_time()

    def end(self) -> None:
        """The last report, of the end: whatever its time is."""
        self._tell()

    def _tell_in_time(self) -> None:
        if self._report is not None and self._clock() - self._told >= _EVERY_S:
            self._tell()

    def _tell(self) -> None:
        if self._report is None:
            return
        self._told = self._clock()
        elapsed = self._told - self._begun
        done = min(self._bytes_done, self._bytes)
        rate = (self._bytes_done - self._base) / elapsed if elapsed > 0 else 0.0
        self._report(
            {
                "files_done": min(self._files_done, self._files),
                "files": self._files,
                "bytes_done": done,
                "bytes": self._bytes,
                "rate_bps": round(rate) if rate > 0 else None,
                "eta_s": round((self._bytes - done) / rate, 1) if rate > 0 else None,
            }
        )
