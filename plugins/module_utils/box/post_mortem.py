# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What is asked when a trainer has failed: the disk, the kernel, the driver and the trainer's own words.

Whoever cannot be asked says nothing: why a trainer ended must never keep the record from being written that it did.
"""

from __future__ import annotations

from typing import Any, Callable, Sequence, TypeVar

from . import cgroup, diary, failure_class, gates, gpu, reserve, run_log
from .layout import AttemptPaths

# The trainer is at work meanwhile, and nobody watches it.
PLACES_WITHIN_S = 5.0

T = TypeVar("T")


class PostMortem:
    """Made before the trainer starts: what the kernel counts says something only by how far it has risen since.

    :param root: the tenant root, on the disk that is looked at. :param limits: what the run asks of it.
    """

    def __init__(self, paths: AttemptPaths, root: str, limits: dict[str, Any]) -> None:
        self._paths, self._root, self._limits = paths, root, limits
        self._since_uptime_s = gpu.uptime_s()
        self._oom_before = cgroup.oom_kills()
        self._cards: Sequence[str] = ()
        self._places: dict[str, str] = {}

    def tell_cards_apart(self, cards: Sequence[str]) -> None:
        """Where the cards of the run sit, asked while they are whole: nothing is told of one that is lost. Only where
        the driver's log can be read, which names them so."""
        if cards and _asked("the driver", gpu.xids, None) is not None:
            self._cards = cards
            self._places = _asked("the driver", lambda: gpu.bus_ids(PLACES_WITHIN_S), {})

    def evidence(self, child: int, together: bool) -> failure_class.Evidence:
        """What is known of an end with exit code ``child``. ``together``: other boxes train with this one."""
        nothing: tuple[tuple[str, ...], bool] = (), False
        shortages, full = _asked("the disk", self._shortages, nothing)
        # Looked at first, as what was kept back would seem to be room. It is what the records to come need.
        reserve.free(self._paths.reserve)
        return failure_class.Evidence(
            child,
            shortages=shortages,
            full=full,
            oom_kills=_asked("the kernel", self._oom_kills, None),
            xids=_asked("the driver", self._xids, ()),
            log_tail=run_log.end(self._paths.log),
            fatal_xids=gpu.FATAL_XIDS,
            together=together,
        )

    def _shortages(self) -> tuple[tuple[str, ...], bool]:
        """What the disk lacks of what the run asks for, and whether there is next to nothing left of it."""
        disk = gates.disk_of(self._root)
        if gates.has_room_to_tell(disk):
            return tuple(gates.shortages(disk, self._limits)), False
        return tuple(gates.shortages(disk, self._limits)) or (gates.in_words(disk),), True

    def _oom_kills(self) -> int | None:
        """Processes that the kernel killed for memory since the trainer started."""
        now = cgroup.oom_kills()
        return None if now is None or self._oom_before is None else now - self._oom_before

    def _xids(self) -> tuple[int, ...]:
        found = gpu.xids(self._since_uptime_s) or []
        return tuple(xid.code for xid in gpu.of_cards(found, self._cards, self._places))


def _asked(whom: str, ask: Callable[[], T], nothing: T) -> T:
    try:
        return ask()
    except Exception as error:
        diary.say("shim", f"{whom} cannot be asked about the trainer: {error!r}")
        return nothing
