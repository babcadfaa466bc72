# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Become ``ansible-playbook`` while holding a lock that says so.

Run as a program: ``playbook_process.py LOCK_FILE ansible-playbook ...``. The lock goes through ``exec`` to
ansible-playbook and its workers, so it is held exactly as long as one of them lives, also when the runner that
started them was killed. The file says which process that is.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
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


def _written(descriptor: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


if __name__ == "__main__":
    main(sys.argv[1:])
