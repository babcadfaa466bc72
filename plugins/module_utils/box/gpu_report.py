# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One look at the GPUs while the box works: memory, heat, faults, Xids, and who holds their memory. Kills nothing.

A process id that nvidia-smi names says little in a container: it may be the host's. So a holder is a process that is
seen in /proc with a GPU device open, and that neither carries the marker of an attempt that lives nor descends from a
process that does: data loader workers inherit both. The attempt may be of another tenant root on this machine, too.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import asdict, dataclass
from typing import Any

from . import attempt, gpu, gpu_locks, process
from .attempt import ATTEMPT_VARIABLE
from .layout import AttemptPaths
from .refusal import Refused

# What starts up or leaves just now is nobody's leftover.
LEAST_AGE_S = 60.0
# The clocks of the kernel's log and of /proc may differ by a little.
_CLOCK_MARGIN_S = 2.0
_DEVICE = re.compile(r"/dev/nvidia[0-9]+\Z")
# As the kernel shows them: cut to 15 characters.
_OF_THE_BOX = re.compile(r"nvidia-|nv-|dcgm|Xorg|Xwayland|nvtop|nvitop|gpustat")
_DEEPEST = 64


@dataclass(frozen=True)
class Holder:
    """A process with a GPU open that is of no live attempt. ``attempt``: the folder of an earlier one, or ""."""

    pid: int
    name: str
    attempt: str = ""
    memory_mib: int | None = None

    def in_words(self) -> str:
        whose = f"left by attempt {'/'.join(self.attempt.split('/')[-3:])}" if self.attempt else "not started by us"
        held = "has a GPU open" if self.memory_mib is None else f"holds {self.memory_mib} MiB of GPU memory"
        return f"process {self.pid} ({self.name}), {whose}, {held}; it was left alone: end it if you do not need it"


def look(attempt_folder: str, began_s: float | None) -> dict[str, Any]:
    """What there is to say now.

    :param attempt_folder: of the trainer that lives; empty when none does.
    :param began_s: its start in seconds since boot.
    """
    reading = gpu.read()
    found = dict(nothing(reading.problem), cards=[_card(each) for each in reading.gpus])
    if reading.problem:
        # One that hangs or is broken now is not asked five times.
        return found
    seen = holders(attempt_folder)
    memory = gpu.compute_memory() if seen else {}
    told = [Holder(each.pid, each.name, each.attempt, memory.get(each.pid)).in_words() for each in seen]
    if not attempt_folder and not seen:
        # Nobody of ours is at work, so whatever holds memory is foreign, seen or not; but not where another tenant
        # root's trainer has the card.
        taken = gpu_locks.held([card.uuid for card in reading.gpus])
        told = gpu.foreign_memory(reading, [card.uuid for card in reading.gpus if card.uuid not in taken])
    # Without load an idle card's low clocks are no fault.
    heat = gpu.throttling() if attempt_folder else None
    xids = None if began_s is None else gpu.xids(max(0.0, began_s - _CLOCK_MARGIN_S))
    return dict(
        found,
        throttling=heat,
        load=None if not attempt_folder else [asdict(each) for each in gpu.load()],
        faults=_faults(reading),
        waiting_for_reset=gpu.waiting_for_reset(),
        xids=None if xids is None else [{"card": xid.card, "code": xid.code} for xid in xids],
        holders=told,
    )


def _faults(reading: gpu.Reading) -> list[str]:
    try:
        return gpu.broken(reading) + gpu.faults()
    except gpu.Unanswered as error:
        return [*gpu.broken(reading), f"{gpu.NOT_ASKED}: {error}"]


def nothing(problem: str) -> dict[str, Any]:
    """A look that found out nothing."""
    empty: dict[str, Any] = {name: [] for name in ("cards", "faults", "waiting_for_reset", "holders")}
    return dict(empty, problem=problem, throttling=None, load=None, xids=None)


def _card(card: gpu.Gpu) -> dict[str, Any]:
    return {"index": card.index, "name": card.name, "memory_mib": card.memory_mib, "used_mib": card.used_mib}


def warnings(found: dict[str, Any], wanted: bool) -> list[str]:
    """The sentences of a look that a person should read. ``wanted``: whether a run needs GPUs at all.

    :param found: what :func:`look` found, with ``attempt``, the name of the attempt that it was about.
    """
    told = [f"the GPUs cannot be looked at: {found['problem']}"] if found["problem"] and wanted else []
    loads = [gpu.Load(**each) for each in found.get("load") or []]
    told += [each.in_words() for each in loads if each.is_hollow]
    told += [*(found["throttling"] or []), *found["faults"], *found["waiting_for_reset"]]
    codes: dict[tuple[str, int], int] = {}
    for xid in found["xids"] or []:
        codes[xid["card"], xid["code"]] = codes.get((xid["card"], xid["code"]), 0) + 1
    for (card, code), times in codes.items():
        often = f" {times} times" if times > 1 else ""
        meaning = ": the card or its host is broken, go on with another box" if code in gpu.FATAL_XIDS else ""
        told.append(f"the driver logged Xid {code} for {card}{often} since {found['attempt']} began{meaning}")
    return told + list(found["holders"])


def holders(attempt_folder: str, least_age_s: float = LEAST_AGE_S) -> list[Holder]:
    """Processes with a GPU open that are neither of the attempt, nor of another one that lives, nor of the box."""
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    found = []
    for pid in process.pids():
        if pid == os.getpid() or not _has_gpu_open(pid):
            continue
        identity = process.identify(pid)
        name = _name(pid)
        if identity is None or _OF_THE_BOX.match(name) or now - process.start_s(identity) < least_age_s:
            continue
        folder = _attempt_of(pid)
        if folder and (folder == attempt_folder or _lives(folder)):
            continue
        found.append(Holder(pid, name, folder))
    return found


def _attempt_of(pid: int) -> str:
    """The folder of the attempt whose marker the process or its nearest ancestor carries; empty without one."""
    for _generation in range(_DEEPEST):
        folder = _marker(pid)
        found = process.read_stat(pid)
        if folder or found is None or found.parent <= 1:
            return folder
        pid = found.parent
    return ""


def _lives(folder: str) -> bool:
    """Whether the attempt lives by its own records: another tenant root's trainer is nobody's leftover."""
    cell_dir, name = os.path.split(folder)
    if not re.match(r"a[0-9]{1,9}\Z", name):
        return False
    try:
        return attempt.is_alive(AttemptPaths(cell_dir, os.path.basename(cell_dir), int(name[1:])))
    except Refused:
        # A disk that cannot say who holds a lock is no reason to call anybody a leftover.
        return True


def _has_gpu_open(pid: int) -> bool:
    folder = os.path.join(process.PROC, str(pid), "fd")
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                if _DEVICE.match(os.readlink(os.path.join(folder, name))):
                    return True
    return False


def _marker(pid: int) -> str:
    """The attempt folder in the environment of a process; empty without one."""
    start = f"{ATTEMPT_VARIABLE}=".encode()
    with contextlib.suppress(OSError), open(os.path.join(process.PROC, str(pid), "environ"), "rb") as stream:
        for entry in stream.read().split(b"\0"):
            if entry.startswith(start):
                return entry[len(start) :].decode("utf-8", "replace")
    return ""


def _name(pid: int) -> str:
    with contextlib.suppress(OSError), open(os.path.join(process.PROC, str(pid), "comm"), "rb") as stream:
        return stream.read().strip().decode("utf-8", "replace")
    return "?"
