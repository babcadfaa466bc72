# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The health of the box while it works: memory, pressure, disk and GPUs, sampled calmly, kept with a short history.

It only tells. What decides over a cell (gates, exit records, failure classes) reads its own evidence.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Callable

from . import attempt, cgroup, forecast, gates, gpu, gpu_report, process, records
from .errand import Errand
from .layout import Layout
from .wording import duration, size

SAMPLE_S = 30.0
# nvidia-smi costs more than everything else here together.
GPU_S = 120.0
# After looks that failed, the next one waits longer and longer, in seconds.
GPU_MOST_S = 1800.0
# An hour of samples, which is also the window of the forecast.
MOST_SAMPLES = 120
COLUMNS = ("monotonic_s", "free_bytes", "free_inodes", "used_bytes", "memory_full_avg10", "io_full_avg10")
# Words of warning begin here.
MEMORY_SHARE = 0.9
MEMORY_WAIT = 10.0
IO_WAIT = 60.0
FORECAST_S = 6 * 3600.0


@dataclass(frozen=True)
class Live:
    """The attempt whose trainer lives: its name (``run/cell/aN``), its folder, and its start in seconds since boot."""

    name: str
    folder: str
    began_s: float | None


@dataclass(frozen=True)
class Places:
    """Where the kernel tells; tests put files there."""

    cgroup: str = "/sys/fs/cgroup"
    membership: str = "/proc/self/cgroup"
    pressure: str = "/proc/pressure"


@dataclass(frozen=True)
class _Measured:
    memory: cgroup.Memory | None
    pressure: dict[str, Any] | None
    disk: gates.Disk


class Sampler:
    """Samples when it is time and writes ``health.json``. Takes up the history of an earlier supervisor."""

    def __init__(
        self, layout: Layout, clock: Callable[[], float] = time.monotonic, places: Places | None = None
    ) -> None:
        self._layout = layout
        self._clock = clock
        self._places = places or Places()
        self._due = self._gpu_due = -math.inf
        self._gpu_pause = GPU_S
        self._errand: Errand[dict[str, Any]] | None = None
        self._asked_for: Live | None = None
        self._live: Live | None = None
        self._gpu: dict[str, Any] | None = None
        self._boot = process.current_boot().as_dict()
        kept = attempt.read(layout.health, "health")
        same = kept.get("boot") == self._boot
        self._history: deque[list[Any]] = deque(_rows(kept.get("history")) if same else (), maxlen=MOST_SAMPLES)
        self._oom: dict[str, Any] = _oom_of(kept) if same else {}

    def tick(self, live: Live | None, gpu_wanted: bool) -> None:
        """Called at every tick of the supervisor; costs nothing until it is time. Never raises for a full disk."""
        now = self._clock()
        fresh = self._collect(now, live)
        if live != self._live:
            # What was counted before an attempt began is not its own, and its end is worth a look.
            self._live, self._due = live, now
        if now < self._due and not fresh:
            return
        self._send(now, live, gpu_wanted)
        measured = self._measure()
        if now >= self._due:
            self._due = now + SAMPLE_S
            self._history.append(_row(now, measured))
        record = self._record(now, live, gpu_wanted, measured)
        if gates.has_room_to_tell(measured.disk):
            with contextlib.suppress(OSError):
                records.write_record(self._layout.health, "health", record)

    # --- GPUs, off the tick ---------------------------------------------------------------------------------------

    def _send(self, now: float, live: Live | None, gpu_wanted: bool) -> None:
        if self._errand is not None or now < self._gpu_due:
            return
        if gpu.tool() is None and not gpu_wanted:
            self._gpu = None
            self._gpu_due = now + GPU_S
            return
        folder, began_s = (live.folder, live.began_s) if live else ("", None)
        self._asked_for = live
        self._errand = Errand("gpu look", lambda: gpu_report.look(folder, began_s))

    def _collect(self, now: float, live: Live | None) -> bool:
        """Take the answer of a look that is back. One about another attempt than the one that lives is thrown away."""
        errand = self._errand
        if errand is None or not errand.is_back:
            return False
        self._errand = None
        found = errand.answer
        failed = found is None or found["problem"]
        self._gpu_pause = min(2 * self._gpu_pause, GPU_MOST_S) if failed else GPU_S
        if live != self._asked_for:
            self._gpu_due = now
            return False
        self._gpu_due = now + self._gpu_pause
        name = live.name if live else ""
        self._gpu = dict(found or gpu_report.nothing(errand.problem), attempt=name, at=records.utc_now())
        return True

    # --- the record -----------------------------------------------------------------------------------------------

    def _measure(self) -> _Measured:
        places = self._places
        return _Measured(
            cgroup.memory(places.cgroup, places.membership),
            cgroup.pressure(places.cgroup, places.membership, places.pressure),
            gates.disk_of(self._layout.root),
        )

    def _record(self, now: float, live: Live | None, gpu_wanted: bool, measured: _Measured) -> dict[str, Any]:
        memory = measured.memory
        told_memory = None if memory is None else dict(memory.as_dict(), **self._oom_since(memory.oom_kills, live))
        disk = dict(measured.disk.as_dict(), **self._forecast(now))
        told = _memory_warnings(told_memory) + _pressure_warnings(measured.pressure) + _disk_warnings(disk)
        told += gpu_report.warnings(self._gpu, gpu_wanted) if self._gpu else []
        return {
            "at": records.utc_now(),
            "boot": self._boot,
            "memory": told_memory,
            "pressure": measured.pressure,
            "disk": disk,
            "gpu": self._gpu,
            "warnings": told,
            "columns": list(COLUMNS),
            "history": list(self._history),
        }

    def _oom_since(self, kills: int | None, live: Live | None) -> dict[str, Any]:
        """Kills since the attempt began that lives, or that lived last."""
        if live is not None and live.name != self._oom.get("attempt"):
            self._oom = {"attempt": live.name, "before": kills}
        before = self._oom.get("before")
        # A counter that fell belongs to a new group of processes: it counts from 0.
        since = None if kills is None or before is None else kills - before if kills >= before else kills
        return {"oom_kills": kills, "oom_attempt": self._oom.get("attempt"), "oom_before": before, "oom_since": since}

    def _forecast(self, now: float) -> dict[str, Any]:
        space = [(row[0], float(row[1])) for row in self._history if row[1] is not None]
        inodes = [(row[0], float(row[2])) for row in self._history if row[2] is not None]
        left = {"full_in_s": forecast.gone_in_s(space, now), "inodes_gone_in_s": forecast.gone_in_s(inodes, now)}
        return {name: None if seconds is None else round(seconds) for name, seconds in left.items()}


def read(layout: Layout, alive: bool) -> dict[str, Any] | None:
    """What the last sample said, without the history. Warnings of a supervisor that is gone say nothing of now."""
    record = attempt.read(layout.health, "health")
    if not record:
        return None
    shown = {key: record.get(key) for key in ("at", "memory", "pressure", "disk", "gpu")}
    told = record.get("warnings")
    return dict(shown, warnings=[str(each) for each in told] if alive and isinstance(told, list) else [])


# --- words --------------------------------------------------------------------------------------------------------


def _memory_warnings(memory: dict[str, Any] | None) -> list[str]:
    if memory is None:
        return []
    told = []
    used, limit = memory["used_bytes"], memory["limit_bytes"]
    if limit and used > MEMORY_SHARE * limit:
        told.append(f"memory: {size(used)} of {size(limit)} are in use ({used / limit:.0%}), without the page cache")
    if memory["oom_since"]:
        told.append(f"the kernel killed {memory['oom_since']} processes for memory since {memory['oom_attempt']} began")
    return told


def _pressure_warnings(pressure: dict[str, Any] | None) -> list[str]:
    """Of the container only: on a shared host the waiting may be the neighbours'."""
    if pressure is None or pressure["scope"] != "container":
        return []
    told = []
    for what, most, word in (("memory", MEMORY_WAIT, "memory"), ("io", IO_WAIT, "the disk")):
        share = _share(pressure, what)
        if share is not None and share >= most:
            told.append(f"all processes waited for {word} during {share:.0f} % of the last ten seconds")
    return told


def _disk_warnings(disk: dict[str, Any]) -> list[str]:
    told = []
    if disk["full_in_s"] is not None and disk["full_in_s"] < FORECAST_S:
        free = size(disk["free_bytes"])
        told.append(f"the disk is full in {duration(disk['full_in_s'])} if it goes on like this ({free} are free)")
    if disk["inodes_gone_in_s"] is not None and disk["inodes_gone_in_s"] < FORECAST_S:
        left = f"{disk['free_inodes']} inodes are free"
        told.append(f"no file can be made in {duration(disk['inodes_gone_in_s'])} if it goes on like this ({left})")
    return told


def _share(pressure: dict[str, Any] | None, what: str) -> float | None:
    found = ((pressure or {}).get(what) or {}).get("full")
    return float(found) if isinstance(found, (int, float)) else None


def _row(now: float, measured: _Measured) -> list[Any]:
    """One line of the history, as ``COLUMNS`` names it."""
    used = measured.memory.used if measured.memory else None
    shares = [_share(measured.pressure, "memory"), _share(measured.pressure, "io")]
    return [round(now, 1), measured.disk.free_bytes, measured.disk.free_inodes, used, *shares]


def _rows(value: object) -> list[list[Any]]:
    """The rows of a kept history; what is none is left out."""
    rows = value if isinstance(value, list) else []
    return [row for row in rows if isinstance(row, list) and len(row) == len(COLUMNS) and all(map(_is_number, row))]


def _is_number(value: object) -> bool:
    return value is None or isinstance(value, (int, float))


def _oom_of(kept: dict[str, Any]) -> dict[str, Any]:
    memory = kept.get("memory")
    found = memory if isinstance(memory, dict) else {}
    before = found.get("oom_before")
    return {"attempt": found.get("oom_attempt"), "before": before if records.is_count(before) else None}
