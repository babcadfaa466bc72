# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""When the newest checkpoints of a run at work are brought home, so that little is lost if box and disk vanish."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

# A pull that takes long is repeated no sooner than after this many times its own duration.
PULL_SHARE = 3.0


class Pulls:
    """Of one run on one box, as this process saw them.

    :param every_s: seconds of training that may be nowhere but on the box; 0 for no pulls.
    """

    def __init__(self, every_s: float, clock: Callable[[], float]) -> None:
        self._every_s, self._clock = every_s, clock
        self._safe_since = clock()
        self._ended_at = float("-inf")
        self._took_s = 0.0

    @property
    def at_risk_s(self) -> float:
        """Seconds of training that would be lost if box and disk vanished now."""
        return self._clock() - self._safe_since

    @property
    def is_due(self) -> bool:
        """Now and then, but never so often that pulling is most of the work."""
        every = max(self._every_s, PULL_SHARE * self._took_s)
        return self._every_s > 0 and self._clock() - self._ended_at >= every and self.at_risk_s >= every

    def training_begins(self) -> None:
        self._safe_since = self._clock()

    @contextlib.contextmanager
    def pulling(self) -> Iterator[Callable[[], None]]:
        """Time a pull. What is given is called if it succeeded: what was saved after it began did not come along."""
        began = self._clock()

        def succeeded() -> None:
            self._safe_since = began

        yield succeeded
        self._ended_at = self._clock()
        self._took_s = self._ended_at - began
