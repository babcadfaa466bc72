# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""An attempt that works for longer than its run allows (``cell_timeout_s``): a loop without end looks busy."""

from __future__ import annotations

import time
from typing import Any, Callable

# Between two looks at the run record: whoever raises the limit is heard before it is over.
LOOK_S = 30.0


def _boot_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Watch:
    """Follows one attempt by the clock that nobody sets.

    :param began: the start of its trainer in seconds since boot; None while nobody knows, so that it is not ended.
    :param read: its run record as it is now.
    """

    def __init__(
        self,
        began: Callable[[], float | None],
        read: Callable[[], dict[str, Any]],
        clock: Callable[[], float] = _boot_s,
    ) -> None:
        self._began, self._read, self._clock = began, read, clock
        self._began_s: float | None = None
        self._look_at = clock()

    def look(self) -> str:
        """Why its time is over; empty while it is not. Called at each tick, looks when it is time."""
        now = self._clock()
        if now < self._look_at:
            return ""
        if self._began_s is None:
            # A shim that is slow to start records its trainer long after it is watched.
            self._began_s = self._began()
        if self._began_s is None:
            self._look_at = now + LOOK_S
            return ""
        limit_s, worked_s = self._read()["cell_timeout_s"], now - self._began_s
        if limit_s and worked_s >= limit_s:
            return f"its time is over: it has worked for {worked_s:.0f} s, and cell_timeout_s is {limit_s:.0f}"
        self._look_at = now + (min(LOOK_S, limit_s - worked_s) if limit_s else LOOK_S)
        return ""
