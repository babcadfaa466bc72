# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Who holds a lease: one process of one controller, told apart from a later one with the same number.

A process of this machine is seen to live or to be dead. Of any other machine, or another container on this one, nothing
is known: it is foreign, and only time or a person ends its lease.
"""

from __future__ import annotations

import getpass
import os
import socket
from dataclasses import asdict, dataclass, field
from typing import Any, Mapping

from .box import process
from .box.records import is_count

ALIVE, DEAD, FOREIGN = "alive", "dead", "foreign"
_TEXTS = ("user", "host", "machine", "boot_id", "namespace")
_NUMBERS = ("pid1_start", "pid", "start")


@dataclass(frozen=True)
class Holder:
    """:param machine: ``/etc/machine-id``; :param namespace: of process numbers; :param start: clock ticks.

    Each may be empty or 0 where the system does not tell.
    """

    user: str = field(compare=False)
    host: str
    machine: str
    boot_id: str
    namespace: str
    pid1_start: int
    pid: int
    start: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def words(self) -> str:
        return f"process {self.pid} of {self.user} on {self.host}"


def holder_from(value: object) -> Holder | None:
    """The holder in a record, or None when it holds none that is usable."""
    if not isinstance(value, Mapping):
        return None
    if not all(isinstance(value.get(key), str) for key in _TEXTS):
        return None
    if not all(is_count(value.get(key)) for key in _NUMBERS):
        return None
    return Holder(**{key: value[key] for key in (*_TEXTS, *_NUMBERS)})


def of_process(pid: int) -> Holder:
    """This controller's process ``pid``."""
    boot = process.current_boot()
    stat = process.read_stat(pid)
    return Holder(
        user_name(),
        socket.gethostname(),
        _first_line("/etc/machine-id"),
        boot.boot_id,
        _namespace(),
        boot.pid1_start,
        pid,
        stat.start if stat else 0,
    )


def myself() -> Holder:
    return of_process(os.getpid())


def ancestry() -> list[Holder]:
    """This process and those that started it, nearest first."""
    pids = [os.getpid()]
    while len(pids) < 100:
        stat = process.read_stat(pids[-1])
        parent = stat.parent if stat else os.getppid()
        if parent < 1 or parent in pids:
            break
        pids.append(parent)
    return [of_process(pid) for pid in pids]


def state_of(holder: Holder) -> str:
    """ALIVE, DEAD or FOREIGN, as seen from here and now."""
    return judge(holder, of_process(holder.pid), exists(holder.pid))


def judge(holder: Holder, now_there: Holder, exists: bool) -> str:
    """:param now_there: the process that has the holder's number here and now; :param exists: whether there is one."""
    if (holder.host, holder.machine) != (now_there.host, now_there.machine):
        return FOREIGN
    if holder.boot_id != now_there.boot_id:
        # Without a machine id another machine of the same name would look like this one after a reboot.
        return DEAD if holder.machine else FOREIGN
    if (holder.namespace, holder.pid1_start) != (now_there.namespace, now_there.pid1_start):
        return FOREIGN
    return ALIVE if exists and holder.start == now_there.start else DEAD


def exists(pid: int) -> bool:
    """Whether a process has this number here and now; a zombie has ended."""
    if os.path.exists(os.path.join(process.PROC, "self/stat")):
        return process.read_stat(pid) is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _namespace() -> str:
    try:
        return os.readlink(os.path.join(process.PROC, "self/ns/pid"))
    except OSError:
        return ""


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as stream:
            return stream.readline().strip()
    except OSError:
        return ""
