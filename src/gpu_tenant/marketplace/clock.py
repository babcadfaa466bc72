# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The market's clock: the wall's, or faster."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from email.utils import formatdate


class MarketClock:
    """Seconds since the epoch as the market counts them.

    :param speed: market seconds per real second, at least 1.
    :param resume_at: the market's time when it last stood, 0 for a new market. Market time never goes back: a fast
        market stands still while nobody serves it, one at wall speed goes on with the wall.
    """

    def __init__(
        self,
        speed: float = 1.0,
        resume_at: float = 0.0,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if math.isnan(speed) or speed < 1.0:
            raise ValueError(f"speed {speed!r}: the market's clock runs at least as fast as the wall's")
        self.speed = speed
        self._monotonic = monotonic
        self._anchor = monotonic()
        self._start = max(wall(), resume_at)

    def now(self) -> float:
        return self._start + self.elapsed() * self.speed

    def elapsed(self) -> float:
        """Real seconds since the market was started."""
        return self._monotonic() - self._anchor

    def http_date(self) -> str:
        return formatdate(self.now(), usegmt=True)
