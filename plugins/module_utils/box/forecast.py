# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""When a disk will be full, from what was free lately. Pure.

Training fills a disk like a saw: a checkpoint is written, an older one removed. So the lowest points of the earlier and
the later half of the window are compared: a saw that does not grow has the same ones, a disk that fills has lower ones.
"""

from __future__ import annotations

from typing import Iterable

WINDOW_S = 3600.0
# Below this span nothing is foretold.
LEAST_SPAN_S = 600.0
# What is further away than this is not worth a word.
LONGEST_S = 30 * 86400.0


def gone_in_s(samples: Iterable[tuple[float, float]], now: float) -> float | None:
    """Seconds until nothing is free, if it goes on like this; None when it does not become less.

    :param samples: (time, free) pairs, ascending in time.
    """
    window = [(at, free) for at, free in samples if now - WINDOW_S <= at <= now]
    if len(window) < 4 or window[-1][0] - window[0][0] < LEAST_SPAN_S:
        return None
    middle = (window[0][0] + window[-1][0]) / 2
    earlier = _lowest([pair for pair in window if pair[0] <= middle])
    later = _lowest([pair for pair in window if pair[0] > middle])
    per_second = (earlier[1] - later[1]) / (later[0] - earlier[0])
    if per_second <= 0:
        return None
    left = max(0.0, later[1] / per_second - (now - later[0]))
    return left if left <= LONGEST_S else None


def _lowest(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """The last of the lowest points."""
    return min(reversed(pairs), key=lambda pair: pair[1])
