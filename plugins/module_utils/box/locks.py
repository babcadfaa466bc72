# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Locks: flock on the box's own disk. Descriptors are close-on-exec, so no child ever keeps a lock alive."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from typing import Iterator

from .refusal import HELD, SYSTEM, Refused

_PAUSE_S = 0.05


def try_lock(path: str) -> int | None:
    """The locked descriptor, or None when another process holds the lock."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if flock_now(descriptor):
            return descriptor
    except OSError as error:
        os.close(descriptor)
        raise _no_locks(path, error) from error
    os.close(descriptor)
    return None


def _no_locks(path: str, error: OSError) -> Refused:
    """Neither held nor free: a network disk without locks (ENOLCK), or one that is broken (EIO)."""
    what = f"{path} cannot be locked, so nobody can say whether its owner lives: {error.strerror or error}"
    return Refused(SYSTEM, what, "keep the tenant root on a local disk, and look whether that disk is well (dmesg)")


def flock_now(descriptor: int, how: int = fcntl.LOCK_EX) -> bool:
    """Whether the file is locked by us now; False when another process holds it.

    :raises OSError: any other answer than these two.
    """
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
            return False
        raise
    return True


def is_held(path: str) -> bool:
    """True when some process holds the lock. Takes a shared lock for an instant, so holders must retry once.

    :raises Refused: SYSTEM, when the disk cannot say.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _no_locks(path, error) from error
    try:
        return not flock_now(descriptor, fcntl.LOCK_SH)
    except OSError as error:
        raise _no_locks(path, error) from error
    finally:
        os.close(descriptor)


def lock_within(path: str, seconds: float, what: str) -> int:
    """The locked descriptor; Refused(HELD) when ``seconds`` pass first. ``what`` names the lock in the refusal."""
    deadline = time.monotonic() + seconds
    while True:
        descriptor = try_lock(path)
        if descriptor is not None:
            return descriptor
        if time.monotonic() >= deadline:
            raise Refused(HELD, f"{what} is held by another process ({path})", "wait for it, then repeat the command")
        time.sleep(_PAUSE_S)


@contextlib.contextmanager
def exclusive(path: str, seconds: float, what: str) -> Iterator[None]:
    """Hold the lock at ``path`` for the body."""
    descriptor = lock_within(path, seconds, what)
    try:
        yield
    finally:
        os.close(descriptor)
