# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Commands that may hang: a broken driver stops nvidia-smi in the kernel, where not even SIGKILL ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from typing import IO, NamedTuple

_EXTRA_PATH = "/usr/local/nvidia/bin:/usr/local/cuda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MAX_OUTPUT = 256 * 1024
_KILL_WAIT_S = 2.0
# What not even SIGKILL ended, by its program: the next one would hang beside it.
_LEFT_BEHIND: dict[str, subprocess.Popen[bytes]] = {}


class Outcome(NamedTuple):
    """How a bounded command ended: ``rc`` is None when it did not start or did not end; ``why`` says so."""

    rc: int | None
    out: str
    why: str


def search_path() -> str:
    """PATH of a non-login shell often lacks the driver's tools."""
    return os.environ.get("PATH", "") + ":" + _EXTRA_PATH


class Apart(NamedTuple):
    """The same with the two streams apart: ``out`` as it was written, ``is_cut`` where it was longer than is kept."""

    rc: int | None
    out: bytes
    said: str
    is_cut: bool
    why: str


def run_bounded(argv: list[str], timeout_s: float, environment: dict[str, str] | None = None) -> Outcome:
    """Run a command with stdin closed; it is killed with all its children when the time is over.

    :param environment: instead of this process's own.

    Output goes to a file: a grandchild that holds a pipe open would outlive the limit. A process that even SIGKILL
    does not end is left behind, and while it hangs the same program is not started again.
    """
    with tempfile.TemporaryFile() as output:
        rc, why = _run(argv, timeout_s, environment, output, subprocess.STDOUT)
        return Outcome(rc, _text(output), why)


def run_apart(argv: list[str], timeout_s: float) -> Apart:
    """Like :func:`run_bounded`, for output that is written back: every byte of it, and nothing else."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        rc, why = _run(argv, timeout_s, None, output, errors)
        output.seek(0)
        found = output.read(_MAX_OUTPUT + 1)
        return Apart(rc, found[:_MAX_OUTPUT], _text(errors), len(found) > _MAX_OUTPUT, why)


def _run(
    argv: list[str], timeout_s: float, environment: dict[str, str] | None, output: IO[bytes], errors: IO[bytes] | int
) -> tuple[int | None, str]:
    """The exit code, None when it did not start or did not end, and why."""
    stuck = _LEFT_BEHIND.get(argv[0])
    if stuck is not None and stuck.poll() is None:
        return None, f"an earlier one still hangs in the kernel (pid {stuck.pid})"
    _LEFT_BEHIND.pop(argv[0], None)
    try:
        # run_command waits for ever for a process that the kernel does not let die.
        child = subprocess.Popen(  # pylint: disable=ansible-bad-function
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            cwd="/",
            env=environment or dict(os.environ, PATH=search_path(), LC_ALL="C"),
            start_new_session=True,
        )
    except OSError as error:
        return None, f"{argv[0]} does not start: {error.strerror}"
    try:
        return child.wait(timeout=timeout_s), ""
    except subprocess.TimeoutExpired:
        _kill(child, argv[0])
        return None, f"no answer within {timeout_s:g} s"


def _text(output: IO[bytes]) -> str:
    output.seek(0)
    return output.read(_MAX_OUTPUT).decode("utf-8", "replace")


def _kill(child: subprocess.Popen[bytes], program: str) -> None:
    with contextlib.suppress(OSError):
        os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=_KILL_WAIT_S)
    if child.returncode is None:
        _LEFT_BEHIND[program] = child
