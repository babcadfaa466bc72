# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Commands that may hang: a broken driver stops nvidia-smi in the kernel, where not even SIGKILL ends it."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from typing import IO, Any, NamedTuple

_EXTRA_PATH = "/usr/local/nvidia/bin:/usr/local/cuda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MAX_OUTPUT = 256 * 1024
_KILL_WAIT_S = 2.0
# Between two looks whether a child has ended whose pipes somebody else holds open.
_LOOK_S = 0.05
_CHUNK = 64 * 1024
# What a user may make a pipe hold, as most systems are set.
_PIPE_HOLDS = 1024 * 1024
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


def run_bounded(
    argv: list[str], timeout_s: float, environment: dict[str, str] | None = None, newest: bool = False
) -> Outcome:
    """Run a command with stdin closed; it is killed with all its children when the time is over.

    :param environment: instead of this process's own. :param newest: of too much output the end is kept, not the start.

    No disk is needed: what fills one is among the things that are asked about. A grandchild that holds the output open
    is not waited for. A process that even SIGKILL does not end is left behind, and while it hangs the same program is
    not started again.
    """
    rc, why, kept = _run(argv, timeout_s, environment, subprocess.STDOUT, newest)
    return Outcome(rc, _text(kept[0]), why)


def run_apart(argv: list[str], timeout_s: float) -> Apart:
    """Like :func:`run_bounded`, for output that is written back: every byte of it, and nothing else."""
    rc, why, (found, errors) = _run(argv, timeout_s, None, subprocess.PIPE)
    return Apart(rc, found[:_MAX_OUTPUT], _text(errors), len(found) > _MAX_OUTPUT, why)


def _run(
    argv: list[str], timeout_s: float, environment: dict[str, str] | None, errors: int, newest: bool = False
) -> tuple[int | None, str, list[bytes]]:
    """The exit code, None when it did not start or did not end; why; and what it wrote on each of its streams."""
    nothing = [b""] * (2 if errors == subprocess.PIPE else 1)
    stuck = _LEFT_BEHIND.get(argv[0])
    if stuck is not None and stuck.poll() is None:
        return None, f"an earlier one still hangs in the kernel (pid {stuck.pid})", nothing
    _LEFT_BEHIND.pop(argv[0], None)
    try:
        # run_command waits for ever for a process that the kernel does not let die.
        child = subprocess.Popen(  # pylint: disable=ansible-bad-function
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            bufsize=0,
            cwd="/",
            env=environment or dict(os.environ, PATH=search_path(), LC_ALL="C"),
            start_new_session=True,
        )
    except OSError as error:
        return None, f"{argv[0]} does not start: {error.strerror}", nothing
    with _Output([pipe for pipe in (child.stdout, child.stderr) if pipe is not None], newest) as output:
        until = time.monotonic() + timeout_s
        output.follow(child, until)
        try:
            return child.wait(timeout=max(0.0, until - time.monotonic())), "", output.kept()
        except subprocess.TimeoutExpired:
            _kill(child, argv[0])
            output.drain()
            return None, f"no answer within {timeout_s:g} s", output.kept()


class _Output:
    """What a child writes on its pipes. More than is kept is read and dropped, so that it never waits for us."""

    def __init__(self, pipes: list[IO[bytes]], newest: bool) -> None:
        self._newest = newest
        self._kept = {pipe: bytearray() for pipe in pipes}
        self._open = selectors.DefaultSelector()
        for pipe in pipes:
            os.set_blocking(pipe.fileno(), False)
            self._open.register(pipe, selectors.EVENT_READ)

    def __enter__(self) -> _Output:
        return self

    def __exit__(self, *_error: object) -> None:
        self._open.close()
        for pipe in self._kept:
            pipe.close()

    def kept(self) -> list[bytes]:
        """Of each pipe at most one byte more than :data:`_MAX_OUTPUT`."""
        return [bytes(kept) for kept in self._kept.values()]

    def follow(self, child: subprocess.Popen[bytes], until: float) -> None:
        """Read until nobody can write any more, the child has ended, or the time is over."""
        while self._open.get_map() and time.monotonic() < until:
            ended = child.poll() is not None
            left_s = 0.0 if ended else min(_LOOK_S, max(0.0, until - time.monotonic()))
            for key, _events in self._open.select(left_s):
                self._read(key.fileobj)
            if ended:
                # Whoever holds the pipe still is a grandchild.
                self.drain()
                return

    def drain(self) -> None:
        """Read what lies in the pipes now, and no more than a pipe can hold."""
        for key in list(self._open.get_map().values()):
            most = _PIPE_HOLDS
            while most > 0:
                got = self._read(key.fileobj)
                if not got:
                    break
                most -= got

    def _read(self, pipe: Any) -> int:
        """How many bytes there were; none at its end, or when nothing lies in it."""
        try:
            data = os.read(pipe.fileno(), _CHUNK)
        except BlockingIOError:
            return 0
        if not data:
            self._open.unregister(pipe)
        kept = self._kept[pipe]
        if self._newest:
            kept += data
            del kept[:-_MAX_OUTPUT]
        else:
            kept += data[: _MAX_OUTPUT + 1 - len(kept)]
        return len(data)


def _text(kept: bytes) -> str:
    return kept[:_MAX_OUTPUT].decode("utf-8", "replace")


def _kill(child: subprocess.Popen[bytes], program: str) -> None:
    with contextlib.suppress(OSError):
        os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=_KILL_WAIT_S)
    if child.returncode is None:
        _LEFT_BEHIND[program] = child
