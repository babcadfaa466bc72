# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""In place of the module ``time``: nobody waits, and what was slept is counted."""

from __future__ import annotations


class StillClock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
