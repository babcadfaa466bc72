# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Starting the supervisor so that it outlives the login that started it."""

from __future__ import annotations

import hashlib
import os
import select
import shutil
import subprocess
import time
from typing import Callable

from .refusal import DEADLINE, SYSTEM, USAGE, Refused

METHODS = ("setsid", "onstart", "tmux", "systemd", "none")
READY_WITHIN_S = 30.0


def command(method: str, argv: list[str], root: str, is_root: bool) -> list[str]:
    """The command that starts ``argv`` under ``method``; used for tmux and systemd, which detach by themselves."""
    name = f"gpu-tenant-{hashlib.sha256(root.encode()).hexdigest()[:8]}"
    if method == "tmux":
        # A server of our own: one that is already running has the environment of whoever started it.
        return ["tmux", "-L", name, "new-session", "-d", "-s", "supervisor", "--", *argv]
    if method == "systemd":
        scope = [] if is_root else ["--user"]
        # KillMode=process: ending the unit must leave the shims and their trainers alone.
        return ["systemd-run", *scope, "--quiet", "--collect", f"--unit={name}", "-p", "KillMode=process", "--", *argv]
    raise Refused(USAGE, f"unknown way to detach: {method!r}")


def start_daemon(argv: list[str], root: str, log: str, method: str, is_ready: Callable[[], bool]) -> None:
    """Start ``argv`` detached and return once it says, or ``is_ready`` finds, that it holds its lock.

    :raises Refused: SYSTEM when the tool is missing or the start failed, DEADLINE when it is not ready in time.
    """
    if method in ("setsid", "onstart"):
        _start_by_fork(argv, log)
        return
    wrapped = command(method, argv, root, os.geteuid() == 0)
    if shutil.which(wrapped[0]) is None:
        raise Refused(SYSTEM, f"{wrapped[0]} is not on this box", "choose another way to detach, for instance setsid")
    # There is no AnsibleModule here whose run_command could be used: this also runs without Ansible.
    done = subprocess.run(  # pylint: disable=ansible-bad-function
        wrapped, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=READY_WITHIN_S, check=False
    )
    if done.returncode != 0:
        raise Refused(SYSTEM, f"{wrapped[0]} could not start the supervisor: {done.stderr.strip()[:300]}")
    until = time.monotonic() + READY_WITHIN_S
    while not is_ready():
        if time.monotonic() >= until:
            raise Refused(DEADLINE, f"the supervisor was not ready within {READY_WITHIN_S:g} s", f"read {log}")
        time.sleep(0.1)


def _start_by_fork(argv: list[str], log: str) -> None:
    """Fork twice, own session, stdio on /dev/null and the log; wait for the byte that says that the lock is held."""
    ready_read, ready_write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                _become_daemon(argv, log, ready_write)
        finally:
            os._exit(0)
    os.close(ready_write)
    os.waitpid(child, 0)
    try:
        _await_ready(ready_read, log)
    finally:
        os.close(ready_read)


def _become_daemon(argv: list[str], log: str, ready: int) -> None:
    try:
        null = os.open(os.devnull, os.O_RDWR)
        written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.dup2(written, 2)
        os.chdir("/")
        os.umask(0o077)
        os.set_inheritable(ready, True)
        os.execv(argv[0], [*argv, "--ready-fd", str(ready)])  # noqa: S606  # no shell is what we want
    finally:
        os._exit(127)


def _await_ready(ready: int, log: str) -> None:
    if not select.select([ready], [], [], READY_WITHIN_S)[0]:
        raise Refused(DEADLINE, f"the supervisor was not ready within {READY_WITHIN_S:g} s", f"read {log}")
    if os.read(ready, 1) != b"1":
        raise Refused(SYSTEM, "the supervisor ended before it was ready", f"read {log}")
