# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Commands that may hang: a broken driver stops nvidia-smi in the kernel, where not even SIGKILL ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from typing import NamedTuple

_EXTRA_PATH = "/usr/local/nvidia/bin:/usr/local/cuda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MAX_OUTPUT = 256 * 1024
_KILL_WAIT_S = 2.0


class Outcome(NamedTuple):
    """How a bounded command ended: ``rc`` is None when it did not start or did not end; ``why`` says so."""

    rc: int | None
    out: str
    why: str


def search_path() -> str:
    """PATH of a non-login shell often lacks the driver's tools."""
    return os.environ.get("PATH", "") + ":" + _EXTRA_PATH


def run_bounded(argv: list[str], timeout_s: float, environment: dict[str, str] | None = None) -> Outcome:
    """Run a command with stdin closed; it is killed with all its children when the time is over.

    :param environment: instead of this process's own.

    Output goes to a file: a grandchild that holds a pipe open would outlive the limit. A process that even SIGKILL
    does not end is left behind.
    """
    with tempfile.TemporaryFile() as output:
        try:
            # run_command waits for ever for a process that the kernel does not let die.
            child = subprocess.Popen(  # pylint: disable=ansible-bad-function
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=environment or dict(os.environ, PATH=search_path(), LC_ALL="C"),
                start_new_session=True,
            )
        except OSError as error:
            return Outcome(None, "", f"{argv[0]} does not start: {error.strerror}")
        try:
            rc: int | None = child.wait(timeout=timeout_s)
            why = ""
        except subprocess.TimeoutExpired:
            rc, why = None, f"no answer within {timeout_s:g} s"
            _kill(child)
        output.seek(0)
        return Outcome(rc, output.read(_MAX_OUTPUT).decode("utf-8", "replace"), why)


def _kill(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=_KILL_WAIT_S)
    if child.returncode is None:
        child.returncode = -signal.SIGKILL  # left behind in the kernel; nothing more can be done about it
