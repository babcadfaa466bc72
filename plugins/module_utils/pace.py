# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""When the next request of a kind may leave, for every process of this machine that uses the account.

The market counts by account. So each process takes a slot in a clock file under a lock, and waits for it on its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import tempfile
from typing import Any, Callable, Iterator

from .box.records import is_count

# A slot further away than this is of another boot, or of a machine whose clock was somebody's joke.
FARTHEST_SLOT_S = 600.0
_LOCK_TRIES = 200
_LOCK_WAIT_S = 0.01


class Pace:
    """Slots of this process alone."""

    def __init__(self) -> None:
        self._slots: dict[str, float] = {}

    def take(self, kind: str, interval: float, now: float, _sleep: Callable[[float], None]) -> float:
        """The moment, by the caller's clock, from which a request of this kind may leave; it counts as sent then."""
        slot = next_slot(self._slots.get(kind), interval, now)
        self._slots[kind] = slot
        return slot


class SharedPace(Pace):
    """Slots of every process that names the same file. Without a file that can be used, those of this process alone.

    The caller's clock must be the machine's (``time.monotonic``), which all its processes share.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def take(self, kind: str, interval: float, now: float, sleep: Callable[[float], None]) -> float:
        try:
            with self._locked(sleep) as descriptor:
                slots = _read(descriptor)
                slot = next_slot(slots.get(kind), interval, now)
                _write(descriptor, dict(slots, **{kind: slot}))
        except OSError:
            return super().take(kind, interval, now, sleep)
        # What this process knows holds even when somebody deletes the file.
        own = super().take(kind, interval, now, sleep)
        return max(slot, own)

    @contextlib.contextmanager
    def _locked(self, sleep: Callable[[float], None]) -> Iterator[int]:
        _own_directory(os.path.dirname(self._path))
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, 0o600)
        try:
            for attempt in range(_LOCK_TRIES):
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if attempt == _LOCK_TRIES - 1:
                        raise
                sleep(_LOCK_WAIT_S)
            yield descriptor
        finally:
            os.close(descriptor)


def next_slot(last: Any, interval: float, now: float) -> float:
    """The first free moment after ``last``; a last one that cannot be is no reason to wait."""
    known = isinstance(last, float) or is_count(last)
    if not known or not now - FARTHEST_SLOT_S <= last <= now + FARTHEST_SLOT_S:
        return now
    return max(now, float(last) + interval)


def default_path(platform: str, account: str) -> str:
    """Where the processes of one user find the clock of one account."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    base = runtime if os.path.isabs(runtime) else tempfile.gettempdir()
    return os.path.join(base, f"gpu-tenant-{os.geteuid()}", f"{platform}-pace-{account}.json")


def _own_directory(path: str) -> None:
    """Make the directory. PermissionError for one of somebody else, who would then set our clock."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(f"{path} is not a directory of our own")


def _read(descriptor: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(descriptor, 65536, 0).decode("utf-8", "replace") or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _write(descriptor: int, slots: dict[str, Any]) -> None:
    data = json.dumps(slots).encode("utf-8")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, data, 0)
