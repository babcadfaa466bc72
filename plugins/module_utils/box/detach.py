# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Starting the supervisor so that it outlives the login that started it."""

from __future__ import annotations

import hashlib
import os
import re
import select
import time
from typing import Callable, Sequence

from . import batch, logout
from .refusal import DEADLINE, SYSTEM, USAGE, Refused
from .tool import run_tool

METHODS = ("setsid", "onstart", "tmux", "systemd", "sbatch", "none")
READY_WITHIN_S = 30.0
RUNNING, PENDING, ABSENT = "running", "pending", "absent"
_MISSING = "choose another way to detach, for instance setsid"
_VERSION = re.compile(r"systemd (\d+)")
_KNOWS_OOM_POLICY = 243


def command(
    method: str,
    argv: list[str],
    root: str,
    is_root: bool,
    options: Sequence[str] = (),
    variables: Sequence[str] = (),
) -> list[str]:
    """The command that starts ``argv`` under ``method``, for those that detach by themselves.

    :param options: words for the tool, for instance ``-p MemoryMax=16G`` for systemd-run.
    :param variables: names of the environment variables of this process that a running tmux server must be given.
    """
    name = unit_name(root)
    if method == "tmux":
        # A server of our own. Should it run already, it has the environment of whoever started it, so the variables of
        # now are named: tmux takes their values from this process, and none of them passes through argv.
        brought = ["start-server", ";", "set-option", "-g", "update-environment", " ".join(variables), ";"]
        return ["tmux", "-L", name, *brought, "new-session", *options, "-d", "-s", "supervisor", "--", *argv]
    if method == "systemd":
        scope = [] if is_root else ["--user"]
        # KillMode=process: ending the unit must leave the shims and their trainers alone. Its name is its own: a unit
        # that a trainer has outlived keeps its name as long as that lives, and that of reboot_hook has the bare name.
        unit = ["--quiet", "--collect", f"--unit={name}-{os.urandom(4).hex()}", "-p", "KillMode=process"]
        return ["systemd-run", *scope, *unit, *options, "--", *argv]
    raise Refused(USAGE, f"unknown way to detach: {method!r}")


def _variables() -> list[str]:
    """Names of what this process has in its environment. Shell functions have others, and TMUX is another server's."""
    return sorted(name for name in os.environ if name.isidentifier() and not name.startswith("TMUX"))


def unit_name(root: str) -> str:
    """The name of the session, unit or job of a tenant root: two roots on one machine have two."""
    return f"gpu-tenant-{hashlib.sha256(root.encode()).hexdigest()[:8]}"


def start_daemon(
    argv: list[str],
    root: str,
    log: str,
    method: str,
    is_ready: Callable[[], bool],
    options: Sequence[str] = (),
    grace_s: float = 0.0,
) -> str:
    """Start ``argv`` detached and return RUNNING once it says, or ``is_ready`` finds, that it holds its lock.

    PENDING when a batch system has taken it and has no room for it yet.

    :param grace_s: what its trainers need to save, for a batch system that gives notice of their end.

    :raises Refused: SYSTEM when the tool is missing or the start failed, DEADLINE when it is not ready in time.
    """
    logout.refuse_what_ends(method)
    if method in ("setsid", "onstart"):
        start_by_fork(argv, log)
        return RUNNING
    if method == "sbatch":
        batch.submit(root, batch.command(argv, unit_name(root), log, options, grace_s))
    else:
        given = [*_oom_policy(), *options] if method == "systemd" else options
        words = command(method, argv, root, os.geteuid() == 0, given, _variables())
        run_tool(words, "start the supervisor", _MISSING)
    until = time.monotonic() + READY_WITHIN_S
    while not is_ready():
        if method == "sbatch" and batch.waiting_job(unit_name(root)):
            return PENDING
        if time.monotonic() >= until:
            raise Refused(DEADLINE, f"the supervisor was not ready within {READY_WITHIN_S:g} s", f"read {log}")
        time.sleep(0.1)
    return RUNNING


def _oom_policy() -> list[str]:
    """Words for systemd-run. By itself it stops a unit of which the kernel has killed one process for memory: a data
    loader's worker would cost the supervisor, and with it the cell. systemd before 243 does not, nor knows the word."""
    told = _VERSION.match(run_tool(["systemd-run", "--version"], "say its version", _MISSING))
    return ["-p", "OOMPolicy=continue"] if told and int(told[1]) >= _KNOWS_OOM_POLICY else []


def start_by_fork(argv: list[str], log: str) -> None:
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
