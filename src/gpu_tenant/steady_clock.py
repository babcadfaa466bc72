# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Seconds since 1970 that go on evenly although the machine's clock is set meanwhile.

How long a box has been stuck, and how old a word of it is, is counted over rounds and over processes. Counted by a
clock that jumps, an hour forward would be an hour of a box that never came up, and another box would be rented.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import process
from ansible_collections.tenant.gpu.plugins.module_utils.box.records import finite


def since_boot() -> float:
    """Seconds that nobody sets; the time that the machine slept is among them where the system tells it."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass
class SteadyClock:
    """What :func:`time.time` said at the start, and from there on what has passed."""

    wall: Callable[[], float] = time.time
    passed: Callable[[], float] = since_boot
    boot_id: str = field(default_factory=lambda: process.current_boot().boot_id)

    def __post_init__(self) -> None:
        self._base = self.wall() - self.passed()

    def __call__(self) -> float:
        return self._base + self.passed()

    def mark(self) -> dict[str, Any]:
        """For a later process of this machine, by which it can tell whether the clock was set in between."""
        return {"boot_id": self.boot_id, "passed": self.passed(), "base": self._base}

    def moved_since(self, mark: object) -> float | None:
        """By how much this clock is ahead of the one that made the mark; None where nobody can say, after a reboot."""
        if not isinstance(mark, Mapping) or not self.boot_id or mark.get("boot_id") != self.boot_id:
            return None
        base, passed = finite(mark.get("base")), finite(mark.get("passed"))
        if base is None or passed is None or passed > self.passed():
            return None
        return self._base - base


@functools.cache
def of_process() -> SteadyClock:
    """The one that all of this process counts by."""
    return SteadyClock()
