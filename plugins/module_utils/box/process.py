# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Who a process is: boot id, pid 1's start, pid and start time, all from /proc.

A pid alone says nothing: it is reused, and a container restart keeps the boot id and moves only pid 1's start.
Nothing here matches command lines.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from dataclasses import dataclass
from typing import Any

PROC = "/proc"
# Set for a supervisor that is a Slurm job of ours: so it knows its own job, and may put it back into the queue.
OF_SLURM = "TENANT_SLURM_REQUEUES"
ALIVE, GONE, REBOOTED, RESTARTED = "alive", "gone", "rebooted", "restarted"
# Of an earlier life of the box: the whole machine began anew, or the container on it did.
EARLIER_LIVES = (REBOOTED, RESTARTED)
# What a kill takes at most on a machine that is not broken; who works for longer hangs in the kernel.
GONE_WITHIN_S = 10.0
_PR_SET_CHILD_SUBREAPER = 36
_DEAD_STATES = ("Z", "X", "x")


@dataclass(frozen=True)
class Boot:
    """One life of the box. ``pid1_start`` is in clock ticks since the host booted, 0 when hidden."""

    boot_id: str
    pid1_start: int

    def as_dict(self) -> dict[str, Any]:
        return {"boot_id": self.boot_id, "pid1_start": self.pid1_start}


@dataclass(frozen=True)
class Identity:
    """One process, for ever: a reused pid has another ``start`` (clock ticks).

    ``job`` is the life of the batch job that it belongs to, if it belongs to one: then other machines may ask for it.
    """

    boot_id: str
    pid1_start: int
    pid: int
    start: int
    job: str = ""

    @property
    def boot(self) -> Boot:
        return Boot(self.boot_id, self.pid1_start)

    def as_dict(self) -> dict[str, Any]:
        known = {"boot_id": self.boot_id, "pid1_start": self.pid1_start, "pid": self.pid, "start": self.start}
        return {**known, "job": self.job} if self.job else known


@dataclass(frozen=True)
class Stat:
    """What /proc/<pid>/stat says."""

    state: str
    parent: int
    group: int
    start: int


def identity_from(value: object) -> Identity | None:
    """The identity in a record, or None when it holds none that is usable."""
    if not isinstance(value, dict):
        return None
    numbers = [value.get(key) for key in ("pid1_start", "pid", "start")]
    boot_id = value.get("boot_id")
    if not isinstance(boot_id, str) or not all(isinstance(number, int) for number in numbers):
        return None
    job = value.get("job")
    pid1_start, pid, start = [int(number) for number in numbers if number is not None]
    return Identity(boot_id, pid1_start, pid, start, job if isinstance(job, str) else "")


def current_boot() -> Boot:
    try:
        with open(os.path.join(PROC, "sys/kernel/random/boot_id"), encoding="ascii") as stream:
            boot_id = stream.read().strip()
    except OSError:
        boot_id = ""
    first = read_stat(1)
    return Boot(boot_id, first.start if first else 0)


def parse_stat(text: str) -> Stat | None:
    """The fields of a stat line; the command in it may hold blanks and brackets."""
    fields = text[text.rfind(")") + 1 :].split()
    if len(fields) < 20:
        return None
    return Stat(fields[0], int(fields[1]), int(fields[2]), int(fields[19]))


def read_stat(pid: int) -> Stat | None:
    """None when there is no such process, or it is already a zombie."""
    try:
        with open(os.path.join(PROC, str(pid), "stat"), encoding="utf-8", errors="replace") as stream:
            found = parse_stat(stream.read())
    except OSError:
        return None
    return None if found is None or found.state in _DEAD_STATES else found


def own_job() -> str:
    """The life of the batch job that this process belongs to, ``<job>.<restarts>``; empty outside of a job of ours."""
    job = job_name() if OF_SLURM in os.environ else ""
    return f"{job}.{os.environ.get('SLURM_RESTART_COUNT') or 0}" if job else ""


def job_name() -> str:
    """The job that this process is in, as Slurm's tools take it; empty outside of one. Of an array that is the task:
    the number of one of them is that of the whole array too."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


def identify(pid: int) -> Identity | None:
    """The identity of a living process, or None."""
    found = read_stat(pid)
    if found is None:
        return None
    boot = current_boot()
    return Identity(boot.boot_id, boot.pid1_start, pid, found.start, own_job())


def myself() -> Identity:
    found = identify(os.getpid())
    if found is None:
        raise OSError(f"/proc says nothing about this process ({os.getpid()}): is /proc mounted?")
    return found


def liveness(identity: Identity | None, boot: Boot, start: int | None) -> str:
    """ALIVE, GONE, REBOOTED or RESTARTED, from what was recorded, this boot, and the start time that the pid has now.

    REBOOTED: another boot id. RESTARTED: the same one, and another first process: the container began anew.
    """
    if identity is None:
        return GONE
    if identity.boot_id != boot.boot_id:
        return REBOOTED
    if identity.pid1_start != boot.pid1_start:
        return RESTARTED
    return ALIVE if start is not None and start == identity.start else GONE


def observe(identity: Identity | None) -> str:
    """:func:`liveness` with /proc read now. A process of a batch job on another machine lives as long as the job."""
    if identity is None:
        return GONE
    found = read_stat(identity.pid)
    seen = liveness(identity, current_boot(), found.start if found else None)
    if seen not in EARLIER_LIVES or not identity.job:
        return seen
    from . import slurm_job  # where there are jobs only: it costs memory

    return ALIVE if slurm_job.lives(identity.job) else seen


def is_elsewhere(identity: Identity | None) -> bool:
    """Whether it is a process of a batch job on a machine whose /proc is not this one."""
    return identity is not None and identity.job != "" and identity.boot != current_boot()


def start_s(identity: Identity) -> float:
    """When the process began, in seconds since the kernel booted, on the clock of the kernel's log too."""
    return identity.start / os.sysconf("SC_CLK_TCK")


def began_s(identity: Identity | None) -> float | None:
    """The same where this machine's clock counts it: None of nobody, and of a machine that has a boot of its own."""
    return None if identity is None or is_elsewhere(identity) else start_s(identity)


def age_s(identity: Identity | None) -> float | None:
    """Seconds since a living process began, on a clock that nobody sets; None when it does not live."""
    if identity is None or is_elsewhere(identity) or observe(identity) != ALIVE:
        return None
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - start_s(identity))


def send(identity: Identity | None, number: int) -> bool:
    """Signal the process if it still is the one recorded; False when it is gone. Of a job elsewhere its supervisor is
    told, which forwards it."""
    if identity is None or observe(identity) != ALIVE:
        return False
    if is_elsewhere(identity):
        from . import slurm_job  # as above

        return slurm_job.tell(identity.job, number)
    try:
        os.kill(identity.pid, number)
    except ProcessLookupError:
        return False
    return True


def send_group(identity: Identity | None, number: int) -> bool:
    """Signal the process group that a living, recorded leader leads."""
    if identity is None or is_elsewhere(identity) or observe(identity) != ALIVE:
        return False
    try:
        os.killpg(identity.pid, number)
    except ProcessLookupError:
        return False
    return True


def pids() -> list[int]:
    return [int(name) for name in os.listdir(PROC) if name.isdigit()]


def carrying(name: str, value: str) -> list[Identity]:
    """Living processes started with ``name=value`` in their environment: the members of one attempt."""
    wanted = f"{name}={value}".encode()
    found = []
    for pid in pids():
        with contextlib.suppress(OSError):
            with open(os.path.join(PROC, str(pid), "environ"), "rb") as stream:
                carries = wanted in stream.read().split(b"\0")
            identity = identify(pid) if carries and pid != os.getpid() else None
            if identity is not None:
                found.append(identity)
    return found


def children(parent: int) -> list[int]:
    """Living direct children."""
    stats = [(pid, read_stat(pid)) for pid in pids()]
    return [pid for pid, found in stats if found is not None and found.parent == parent]


def become_subreaper() -> bool:
    """Inherit orphaned descendants, so that workers of a killed trainer can be found. False where unsupported."""
    try:
        return bool(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def kill_all(identities: list[Identity], number: int = signal.SIGKILL) -> int:
    """Signal each process that still is the one recorded; how many were."""
    return sum(1 for identity in identities if send(identity, number))


def end_all(identities: list[Identity], within_s: float = GONE_WITHIN_S) -> int:
    """Kill them and wait until they are gone, which takes a moment on a busy machine and for ever on a hanging disk.

    :param within_s: what is waited for at most.
    :return: how many there were.
    """
    until = time.monotonic() + within_s
    killed = kill_all(identities)
    while any(observe(identity) == ALIVE for identity in identities) and time.monotonic() < until:
        time.sleep(0.02)
    return killed
