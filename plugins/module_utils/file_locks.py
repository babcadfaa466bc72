# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Locks of the state store: each is waited for so long and no longer, and a refusal says who has it.

Whoever holds a lock file writes into it who that is, so that it is known on every machine that shares the disk. Of the
journal, which is locked itself, only the processes of this machine that have it open are known.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from dataclasses import dataclass
from typing import Callable, Iterator

from .box.locks import flock_now
from .box.process import PROC
from .failures import TenantFailure
from .holders import user_name
from .rental_waiters import DeadlinePassed, wait_until

# Short, because a whole play waits here for one process to read a list; asking costs next to nothing.
_FIRST_WAIT_S, _MOST_WAIT_S = 0.005, 0.25


@dataclass(frozen=True)
class Lock:
    """:param what: what cannot be used while another has it; :param safe: what is unharmed when we do not get it."""

    path: str
    what: str
    safe: str
    within_s: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@contextlib.contextmanager
def held(lock: Lock) -> Iterator[None]:
    """Hold a lock file for the body.

    :raises TenantFailure: ``lease_held`` when another process has it for too long; ``config`` on a disk without locks.
    """
    os.makedirs(os.path.dirname(lock.path), mode=0o700, exist_ok=True)
    descriptor = os.open(lock.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        take(descriptor, lock, lambda: _signed(descriptor) or _open_in(lock.path))
        _sign(descriptor, f"process {os.getpid()} of {user_name()} on {socket.gethostname()}")
        try:
            yield
        finally:
            _sign(descriptor, "")
    finally:
        os.close(descriptor)


def take(descriptor: int, lock: Lock, holder: Callable[[], str] | None = None) -> None:
    """Lock an open file until it is closed.

    :param holder: says who has it, as far as that is known; without it, those are named that have the file open.
    :raises TenantFailure: as :func:`held`.
    """
    try:
        waits = _waits()
        wait_until(lambda: flock_now(descriptor) or None, lock.clock() + lock.within_s, waits, lock.clock, lock.sleep)
    except DeadlinePassed:
        raise _refusal(lock, (holder or (lambda: _open_in(lock.path)))()) from None
    except OSError as error:
        raise TenantFailure(
            "config",
            f"{lock.what} cannot be locked ({lock.path}: {error.strerror or error})",
            safe=lock.safe,
            fix="keep tenant_state_dir on a disk that has locks, and see whether that disk is well",
        ) from error


def _refusal(lock: Lock, holder: str) -> TenantFailure:
    known = holder or "another process"
    find = "" if holder else f" (fuser -v {lock.path} names it)"
    return TenantFailure(
        "lease_held",
        f"{lock.what} is locked by {known}, and was not free within {lock.within_s:g} s ({lock.path})",
        safe=lock.safe,
        fix=f"wait until that process has ended, or end it if it hangs{find}; then run the same command again",
    )


def _waits() -> Iterator[float]:
    wait = _FIRST_WAIT_S
    while True:
        yield wait
        wait = min(wait * 1.5, _MOST_WAIT_S)


def _sign(descriptor: int, who: str) -> None:
    """A full disk costs the name only."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, who.encode("utf-8"), 0)


def _signed(descriptor: int) -> str:
    return ascii(os.pread(descriptor, 200, 0).decode("utf-8", "replace"))[1:-1]


def _open_in(path: str) -> str:
    """The other processes of this machine that have a file open, as far as we may see."""
    wanted = os.path.realpath(path)
    found = []
    with contextlib.suppress(OSError):
        for name in filter(str.isdigit, os.listdir(PROC)):
            with contextlib.suppress(OSError):
                opened = os.path.join(PROC, name, "fd")
                links = (os.readlink(os.path.join(opened, number)) for number in os.listdir(opened))
                if int(name) != os.getpid() and wanted in links:
                    found.append(int(name))
    return f"process {' or '.join(map(str, sorted(found)))}" if found else ""
