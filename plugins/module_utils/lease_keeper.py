# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The keeper of a process's leases: a small process beside it that renews them, and gives them back when it has ended.

A task at the end of a playbook would not do: it does not run on a box that failed, was unreachable or ended early, nor
after a kill. And no task runs in the hours that another task may take. The keeper sees the end of the process itself,
however it came. If the keeper is killed too, a lease of this machine still gives way at once, because its holder is
dead, and one of another machine when its time has run out.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from typing import Any, Sequence

from . import lease
from .box import locks, records
from .box.refusal import Refused
from .failures import TenantFailure
from .holders import DEAD, Holder, holder_from, state_of
from .leases import DATABASE_VARIABLE, Leases, opened
from .state_store import StateStore

RENEW_EVERY_S = lease.TERM_S / 3
_POLL_S = 0.25
_STARTS_WITHIN_S = 10.0
_PASSING = (OSError, records.RecordError, TenantFailure)
# What the database's library reads besides the URL; nothing else of the environment goes along, it may hold secrets.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", DATABASE_VARIABLE)


def lock_path(store: StateStore, holder: Holder) -> str:
    return store.path("leases", ".keepers", f"{holder.host}.{holder.pid}.{holder.start}.lock")


def ensure(store: StateStore, holder: Holder) -> None:
    """Start the keeper of ``holder``'s leases unless it is at work. Cheap to call for each of many boxes."""
    if not _is_ours_to_start(lock_path(store, holder)):
        return
    root = __file__
    for _unused in __name__.split("."):
        root = os.path.dirname(root)
    code = f"import sys; sys.path.insert(0, {root!r}); from {__name__} import main; main(sys.argv[1:])"
    described = records.canonical_json(holder.as_dict()).decode()
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment.update({name: value for name, value in os.environ.items() if name.startswith("PG")})
    subprocess.Popen(  # pylint: disable=ansible-bad-function,consider-using-with
        [sys.executable, "-I", "-c", code, store.root, described],
        cwd="/",
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        close_fds=True,
    )


def _is_ours_to_start(path: str) -> bool:
    """Of all that take leases for one process at the same instant, the one that makes the file starts the keeper."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        with contextlib.suppress(OSError, Refused):
            return time.time() - os.stat(path).st_mtime > _STARTS_WITHIN_S and not locks.is_held(path)
        return False
    return True


def main(arguments: Sequence[str]) -> None:
    state_dir, described = arguments
    store = StateStore(state_dir)
    holder = holder_from(_parsed(described))
    if holder is None or not os.path.isdir(store.path("leases")):
        return
    path = lock_path(store, holder)
    try:
        # Whoever asks whether a keeper is at work locks the file for an instant too.
        descriptor = locks.lock_within(path, 1.0, "the keeper's lock")
    except Refused:
        return
    try:
        keep(opened(store), holder)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(descriptor)


def keep(leases: Leases, holder: Holder, renew_every_s: float = RENEW_EVERY_S) -> None:
    """Renew until ``holder`` has ended, then release."""
    while not ended_within(holder, renew_every_s):
        _each(leases, holder, lambda found: leases.renew(found.project, found.box, holder))
    _each(leases, holder, lambda found: leases.release(found.project, found.box, holder))


def _each(leases: Leases, holder: Holder, act: Any) -> None:
    """One lease that cannot be changed now (a disk or a database that is away) must not end the keeping of the rest."""
    with contextlib.suppress(*_PASSING):
        for found in leases.of(holder):
            with contextlib.suppress(*_PASSING):
                act(found)


def ended_within(holder: Holder, seconds: float) -> bool:
    """Wait until the process has ended, at most ``seconds``; whether it has."""
    until = time.monotonic() + seconds
    watched = _watched(holder)
    try:
        while state_of(holder) != DEAD:
            left = until - time.monotonic()
            if left <= 0:
                return False
            if watched is None:
                time.sleep(min(_POLL_S, left))
            elif select.select([watched], [], [], left)[0]:
                return True
        return True
    finally:
        if watched is not None:
            os.close(watched)


def _watched(holder: Holder) -> int | None:
    """A descriptor that becomes readable when the process ends; None where the system has none."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(holder.pid)
    except OSError:
        return None


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None
