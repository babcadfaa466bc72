# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How often to checkpoint: the interval of Young and Daly."""

from __future__ import annotations

import math
from typing import Any


def checkpoint_interval_s(mu_s: Any, c_s: Any, sec_per_step: Any = None, workers: Any = 1) -> float:
    """Seconds of work between two checkpoints: ``sqrt(2 * mu * C)``.

    :param mu_s: mean time between interruptions of one worker, in seconds.
    :param c_s: cost of one checkpoint, in seconds.
    :param sec_per_step: seconds of one training step; the interval is rounded down to whole steps, at least one.
    :param workers: boxes that one run needs at once; N of them are interrupted N times as often.
    :raises ValueError: names the value that is not a positive number.
    """
    mean, cost, count = _positive("mu_s", mu_s), _positive("c_s", c_s), _positive("workers", workers)
    interval = math.sqrt(2.0 * (mean / count) * cost)
    if sec_per_step is None:
        return interval
    step = _positive("sec_per_step", sec_per_step)
    return max(1, math.floor(interval / step)) * step


def _positive(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number) or number <= 0:
        raise ValueError(f"{name} is {value!r}: a positive number is wanted")
    return number
