# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Pace: steps per second from the steps that were seen, on a clock that nobody sets. Pure."""

from __future__ import annotations

from collections import deque
from typing import Iterable

# Looked at every ten seconds that is ten minutes; of a trainer that tells once an epoch it is the last sixty epochs.
MOST_SEEN = 60


class Pace:
    """:param seen: (time, step) pairs of an earlier supervisor in this life of the box, ascending."""

    def __init__(self, seen: Iterable[tuple[float, int]] = ()) -> None:
        self._seen: deque[tuple[float, int]] = deque(maxlen=MOST_SEEN)
        for at, step in seen:
            self.note(step, at)

    def note(self, step: int, now: float) -> None:
        """``step`` is what the trainer tells at ``now``. A lower one than before begins a new count."""
        if self._seen:
            at, before = self._seen[-1]
            if step == before:
                return
            if step < before or now <= at:
                self._seen.clear()
        self._seen.append((now, step))

    def rate(self, now: float) -> float | None:
        """Steps per second; None before two steps were seen apart. A silence longer than usual lowers it."""
        if len(self._seen) < 2:
            return None
        times = [at for at, _step in self._seen]
        longest = max(after - before for before, after in zip(times, times[1:]))
        until = max(times[-1], now - longest)
        return (self._seen[-1][1] - self._seen[0][1]) / (until - times[0])

    def as_list(self) -> list[list[float]]:
        return [[round(at, 3), step] for at, step in self._seen]
