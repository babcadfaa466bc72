# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What is asked when a trainer has failed: the disk, the kernel, the driver and the trainer's own words.

Whoever cannot be asked says nothing: why a trainer ended must never keep the record from being written that it did.
"""

from __future__ import annotations

from typing import Any, Callable, TypeVar

from . import cgroup, diary, failure_class, gates, gpu, reserve, run_log
from .layout import AttemptPaths

T = TypeVar("T")


class PostMortem:
    """Made before the trainer starts: what the kernel counts says something only by how far it has risen since.

    :param root: the tenant root, on the disk that is looked at. :param limits: what the run asks of it.
    """

    def __init__(self, paths: AttemptPaths, root: str, limits: dict[str, Any]) -> None:
        self._paths, self._root, self._limits = paths, root, limits
        self._since_uptime_s = gpu.uptime_s()
        self._oom_before = cgroup.oom_kills()

    def evidence(self, child: int, together: bool) -> failure_class.Evidence:
        """What is known of an end with exit code ``child``. ``together``: other boxes train with this one."""
        shortages: tuple[str, ...] = _asked("the disk", self._shortages, ())
        # Looked at first, as what was kept back would seem to be room. It is what the records to come need.
        reserve.free(self._paths.reserve)
        return failure_class.Evidence(
            child,
            shortages=shortages,
            oom_kills=_asked("the kernel", self._oom_kills, None),
            xids=_asked("the driver", self._xids, ()),
            log_tail=run_log.end(self._paths.log),
            fatal_xids=gpu.FATAL_XIDS,
            together=together,
        )

    def _shortages(self) -> tuple[str, ...]:
        return tuple(gates.shortages(gates.disk_of(self._root), self._limits))

    def _oom_kills(self) -> int | None:
        """Processes that the kernel killed for memory since the trainer started."""
        now = cgroup.oom_kills()
        return None if now is None or self._oom_before is None else now - self._oom_before

    def _xids(self) -> tuple[int, ...]:
        return tuple(xid.code for xid in gpu.xids(self._since_uptime_s) or ())


def _asked(whom: str, ask: Callable[[], T], nothing: T) -> T:
    try:
        return ask()
    except Exception as error:
        diary.say("shim", f"{whom} cannot be asked why the trainer ended: {error!r}")
        return nothing
