# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A trainer that stalls: alive, and neither writes nor computes. It would be paid for until somebody looks.

Silence alone is no stall: an epoch may say nothing for an hour. So its processes must be idle too, and its GPUs where
the driver tells of them.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any, Callable

from . import attempt, gpu, gpu_locks, heartbeat, process
from .errand import Errand
from .layout import AttemptPaths

# Between two looks, and the time over which processes must be idle; less where the run is less patient.
LOOK_S = 30.0
# What a shim records of life is that late at most: it looks, and writes, every 30 s.
LATE_S = 60.0
IDLE_S = 120.0
# Of one processor, and of a card in per cent: less is waiting.
BUSY_CPU = 0.05
BUSY_GPU = 3


def signs_of_life(paths: AttemptPaths) -> list[float]:
    """When log, metrics, checkpoints and event files last changed. Not the status: that is the shim's own."""
    times = []
    for path in (paths.log, paths.metrics, paths.checkpoints, paths.claim, *heartbeat.signs_of_life(paths)):
        with contextlib.suppress(OSError):
            times.append(os.path.getmtime(path))
    return times


class Life:
    """When the signs of life of an attempt last changed, by the monotonic clock: also a time that went back is one."""

    def __init__(self, paths: AttemptPaths, clock: Callable[[], float] = time.monotonic) -> None:
        self._paths, self._clock = paths, clock
        self._seen: list[float] = []
        self.at = clock()

    def look(self) -> None:
        seen = signs_of_life(self._paths)
        if seen != self._seen:
            self._seen, self.at = seen, self._clock()

    def as_dict(self) -> dict[str, Any]:
        return {"at_s": round(self.at, 3), "boot": process.current_boot().as_dict()}


def idle_s(paths: AttemptPaths, told: object) -> float | None:
    """Seconds since log, metrics or checkpoints last changed; None before there is any.

    :param told: :class:`Life` as its shim has recorded it. It is late by up to two beats, so only a clock that was set
        forward since makes the files older than that.
    """
    times = signs_of_life(paths)
    if not times:
        return None
    idle = max(0.0, time.time() - max(times))
    life = told if isinstance(told, dict) else {}
    if isinstance(life.get("at_s"), (int, float)) and life.get("boot") == process.current_boot().as_dict():
        watched = time.monotonic() - life["at_s"]
        idle = watched if watched + LATE_S < idle else idle
    return round(idle, 1)


class Watch:
    """Follows one attempt. A clock that is set stalls nobody."""

    def __init__(self, paths: AttemptPaths, run: dict[str, Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._paths, self._run, self._clock = paths, run, clock
        self._life = Life(paths, clock)
        self._look_at = clock()
        self._idle: tuple[float, float] | None = None
        self._errand: Errand[bool] | None = None

    def look(self) -> str:
        """Why the trainer counts as stalled; empty while it does not. Called at each tick, looks when it is time."""
        stall_s, now = self._run["stall_s"], self._clock()
        if not stall_s or now < self._look_at:
            return ""
        self._look_at = now + min(LOOK_S, stall_s / 4)
        self._life.look()
        if now - self._life.at <= stall_s or not self._is_idle(now, min(IDLE_S, stall_s)):
            return ""
        return f"it stalls: for {now - self._life.at:.0f} s it has written nothing, and it does not compute"

    def _is_idle(self, now: float, within_s: float) -> bool:
        used = cpu_s(attempt.members(self._paths))
        if self._idle is None or used - self._idle[1] > BUSY_CPU * max(now - self._idle[0], 1.0):
            self._idle, self._errand = (now, used), None
            return False
        if now - self._idle[0] < within_s:
            return False
        return not self._run["gpu"]["required"] or self._gpus_rest(now, used)

    def _gpus_rest(self, now: float, used: float) -> bool:
        """A driver that does not answer tells nothing: then the processes alone decide."""
        if self._errand is None:
            self._errand = Errand("stall", lambda: gpus_work(self._run))
        if not self._errand.is_back:
            return False
        errand, self._errand = self._errand, None
        if errand.answer:
            self._idle = now, used
        return not errand.answer


def gpus_work(run: dict[str, Any]) -> bool:
    """Whether a card that the run uses is at work, as far as the driver says."""
    shares = gpu.utilisation()
    return any((shares.get(card) or 0) >= BUSY_GPU for card in gpu_locks.cards(run, gpu.read()))


def cpu_s(processes: list[process.Identity]) -> float:
    """Processor seconds that these have used so far, with children that have ended."""
    ticks = 0
    for each in processes:
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(os.path.join(process.PROC, str(each.pid), "stat"), encoding="utf-8", errors="replace") as stream:
                text = stream.read()
            ticks += sum(int(field) for field in text[text.rfind(")") + 1 :].split()[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")
