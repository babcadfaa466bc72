# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Become ``ansible-playbook`` while holding a lock that says so.

Run as a program: ``playbook_process.py LOCK_FILE ansible-playbook ...``. The lock goes through ``exec`` to
ansible-playbook and its workers, so it is held exactly as long as one of them lives, also when the runner that
started them was killed. The file says which process that is.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from typing import Any


def main(arguments: list[str]) -> None:
    lock_file, *command = arguments
    descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps({"pid": os.getpid(), "session": os.getsid(0)}).encode())
    os.set_inheritable(descriptor, True)
    try:
        os.execvp(command[0], command)  # noqa: S606 - becoming ansible-playbook is the purpose
    except OSError as error:
        sys.exit(f"cannot start {command[0]}: {error.strerror}")


def holder(lock_file: str) -> dict[str, Any] | None:
    """Who holds ``lock_file`` (``{pid, session}``; empty when it wrote nothing yet); None when nobody does."""
    try:
        descriptor = os.open(lock_file, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _written(descriptor)
    finally:
        os.close(descriptor)
    return None


def end(lock_file: str, grace_s: float = 10.0) -> None:
    """SIGINT, then SIGKILL, to every process that holds ``lock_file``, until none does.

    ansible-playbook's workers are sessions of their own, so no signal to a group reaches them when it was killed; the
    open lock file tells them from everybody else's processes.
    """
    for number in (signal.SIGINT, signal.SIGKILL):
        for pid in _members(lock_file):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        until = time.monotonic() + grace_s
        while holder(lock_file) is not None:
            if time.monotonic() > until:
                break
            time.sleep(0.05)
        else:
            return


def _members(lock_file: str) -> list[int]:
    """Processes that have ``lock_file`` open; without /proc only the one that its text names."""
    wanted = os.path.realpath(lock_file)
    if not os.path.isdir("/proc/self/fd"):
        pid = (holder(lock_file) or {}).get("pid")
        return [pid] if isinstance(pid, int) and pid > 1 else []
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            opened = (os.readlink(f"/proc/{name}/fd/{number}") for number in os.listdir(f"/proc/{name}/fd"))
            if int(name) != os.getpid() and wanted in opened:
                found.append(int(name))
    return found


def _written(descriptor: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


if __name__ == "__main__":
    main(sys.argv[1:])
