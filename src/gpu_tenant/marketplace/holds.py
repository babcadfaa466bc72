# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""States that a fault holds instances in, against what the market would do: pure book-keeping."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Held(StrEnum):
    LOADING = "loading"
    SCHEDULING = "scheduling"
    OFFLINE = "offline"
    UNKNOWN = "unknown"
    OUTBID = "outbid"
    SLOW_LINK = "slow_link"
    DISK_FULL = "disk_full"
    LISTED = "listed"
    ONLY_LISTED = "only_listed"
    ZERO_GPU = "zero_gpu"


# While one of these holds an instance, no process of its box runs.
NOT_BOOTING = frozenset({Held.LOADING, Held.OFFLINE, Held.UNKNOWN})
# While one of these holds a destroyed instance, its row stays: everywhere, or in the list alone, as it was.
LINGERING = frozenset({Held.LISTED, Held.ONLY_LISTED})
# What the market says of an instance whose host it has not heard.
UNHEARD = (Held.OFFLINE, Held.UNKNOWN)


@dataclass(frozen=True)
class Hold:
    """:param until: market time, infinite while the fault lasts.
    :param cause: the fault's number.
    :param amount: of what the state is measured in: KiB a second of a slow link, MiB of room on a full disk.
    """

    instance_id: int
    state: Held
    until: float
    cause: int
    amount: float = 0.0

    def as_dict(self, now: float) -> dict[str, Any]:
        left = None if self.until == float("inf") else max(0.0, self.until - now)
        return {"instance": self.instance_id, "state": self.state.value, "left_s": left, "fault": self.cause}


@dataclass
class Holds:
    """Not for two threads at once.

    :param changes: counts them, for who keeps what it made of them.
    """

    _all: list[Hold] = field(default_factory=list)
    changes: int = field(default=0, compare=False)

    def __bool__(self) -> bool:
        return bool(self._all)

    def __iter__(self) -> Iterator[Hold]:
        return iter(self._all)

    def add(self, hold: Hold) -> None:
        self._all.append(hold)
        self.changes += 1

    def take(self, expired: Iterable[Hold]) -> list[Hold]:
        """Forget these holds; those of them that nothing else holds on to."""
        gone = list(expired)
        self._all = [hold for hold in self._all if hold not in gone]
        self.changes += 1
        return [hold for hold in gone if not self.holds(hold.instance_id, hold.state)]

    def expired(self, now: float) -> list[Hold]:
        return [hold for hold in self._all if hold.until <= now]

    def caused_by(self, cause: int) -> list[Hold]:
        return [hold for hold in self._all if hold.cause == cause]

    def holds(self, instance_id: int, *states: Held) -> bool:
        return any(hold.instance_id == instance_id and hold.state in states for hold in self._all)

    def amount(self, instance_id: int, state: Held) -> float | None:
        """The least that a hold of this state leaves the instance; None where none holds it."""
        return min(
            (one.amount for one in self._all if (one.instance_id, one.state) == (instance_id, state)), default=None
        )

    def keeps_down(self, instance_id: int) -> bool:
        return self.holds(instance_id, *NOT_BOOTING)

    def unheard_as(self, instance_id: int) -> str | None:
        """``actual_status`` of an instance whose host is lost, None for any other."""
        return next((state.value for state in UNHEARD if self.holds(instance_id, state)), None)

    def as_dicts(self, now: float) -> list[dict[str, Any]]:
        return [hold.as_dict(now) for hold in self._all]
