# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Moving bytes: one attempt by rsync or by a plain stream over ssh, and the loop of attempts around it.

An attempt reports how it ended. Whether a file arrived is said by ``delivery.settle``, from its bytes.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import select
import subprocess
import tempfile
import time
from dataclasses import dataclass
from typing import IO, Any, Callable, Iterator, Sequence

from . import stream_peer
from .roster import Mismatch, RosterFile
from .transfer import (
    BULK_BYTES,
    PARTIAL_DIR,
    Attempt,
    Link,
    RsyncWishes,
    back_off,
    far_argv,
    files_from,
    judge_rsync,
    judge_ssh,
    rsync_argv,
)

_CHUNK = 256 * 1024
_MAX_LINE = 1024 * 1024
_END_GRACE_S = 10


class Deadline:
    """A moment on the monotonic clock."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        return max(0.0, self._at - time.monotonic())

    @property
    def passed(self) -> bool:
        return self.left_s <= 0


@dataclass(frozen=True)
class Route:
    """Where bytes go: ``far_root`` on the box, ``near_root`` here; ``python`` is the box's interpreter."""

    link: Link
    pull: bool
    far_root: str
    near_root: str
    python: str
    wishes: RsyncWishes


def move_by_rsync(route: Route, files: Sequence[RosterFile], deadline: Deadline, own_connection: bool) -> Attempt:
    """One run of rsync for ``files``. What arrived of a cut file stays in the partial folder of the receiver."""
    source, dest = (route.far_root, route.near_root) if route.pull else (route.near_root, route.far_root)
    argv = rsync_argv(route.link, route.pull, source, dest, route.wishes, own_connection)
    environment = dict(os.environ, LC_ALL="C")
    # There is no AnsibleModule here whose run_command could be used: this also runs without Ansible.
    with subprocess.Popen(  # pylint: disable=ansible-bad-function
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        try:
            stdout, stderr = process.communicate(files_from(files), timeout=deadline.left_s)
        except subprocess.TimeoutExpired:
            _end(process)
            return Attempt("rsync", process.returncode, "the whole transfer took longer than its deadline")
        except BaseException:
            _end(process)
            raise
    return judge_rsync(process.returncode, stdout, stderr)


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM first: rsync then keeps what arrived."""
    process.terminate()
    try:
        process.communicate(timeout=_END_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


# --- the stream ---------------------------------------------------------------------------------------------------


class _Broken(Exception):
    """The stream ended, stalled or spoke nonsense; the text says which."""


def move_by_stream(route: Route, files: Sequence[RosterFile], deadline: Deadline, own_connection: bool) -> Attempt:
    """One connection that carries ``files`` without rsync, each from where it was cut."""
    argv = far_argv(route.link, [route.python, "-c", inspect.getsource(stream_peer)], own_connection)
    # There is no AnsibleModule here whose run_command could be used: this also runs without Ansible.
    with tempfile.TemporaryFile() as errors, subprocess.Popen(  # pylint: disable=ansible-bad-function
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
    ) as process:
        pipes = _Pipes(process, route.wishes, deadline)
        reason = ""
        try:
            wire_bytes = (_pull if route.pull else _push)(route, files, pipes)
        except (_Broken, OSError) as error:
            reason, wire_bytes = str(error), 0
        finally:
            _close(process)
        errors.seek(0)
        stderr = errors.read()[-4096:]
    if reason:
        return judge_ssh(process.returncode, stderr, reason)
    return Attempt("stream", 0, wire_bytes=wire_bytes)


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()
    try:
        process.wait(timeout=_END_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class _Pipes:
    """Reads and writes that give up after a stall, at the deadline, or when a bandwidth limit says wait."""

    def __init__(self, process: subprocess.Popen[bytes], wishes: RsyncWishes, deadline: Deadline) -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("the process has no pipes")
        self._in, self._out = process.stdin.fileno(), process.stdout.fileno()
        self.close_input: Callable[[], None] = process.stdin.close
        os.set_blocking(self._in, False)
        self._wishes, self._deadline = wishes, deadline
        self._buffer = b""
        self._begun, self._moved = time.monotonic(), 0

    def _wait(self, read: bool) -> None:
        patience = min(float(self._wishes.stall_timeout_s), self._deadline.left_s)
        ready = select.select([self._out] if read else [], [] if read else [self._in], [], patience)
        if not (ready[0] or ready[1]):
            raise _Broken("no data for too long" if not self._deadline.passed else "it took longer than its deadline")

    def _pace(self, count: int) -> None:
        """Wait as long as the bandwidth limit asks, no longer than the deadline."""
        self._moved += count
        if self._wishes.limit_kib:
            due = self._moved / (self._wishes.limit_kib * 1024) - (time.monotonic() - self._begun)
            if due > 0:
                time.sleep(min(due, self._deadline.left_s))
        if self._deadline.passed:
            raise _Broken("it took longer than its deadline")

    def read_some(self, most: int) -> bytes:
        if not self._buffer:
            self._wait(read=True)
            self._buffer = os.read(self._out, _CHUNK)
            if not self._buffer:
                raise _Broken("the stream ended early")
        piece, self._buffer = self._buffer[:most], self._buffer[most:]
        return piece

    def read_answer(self) -> dict[str, Any]:
        """One JSON line from the box, bounded, of whatever the box chose to say."""
        line = b""
        while not line.endswith(b"\n"):
            piece = self.read_some(_CHUNK)
            end = piece.find(b"\n") + 1
            if end:
                self._buffer = piece[end:] + self._buffer
                piece = piece[:end]
            line += piece
            if len(line) > _MAX_LINE:
                raise _Broken("the box answered with something else than expected")
        try:
            answer = json.loads(line.decode("utf-8"))
        except ValueError as error:
            raise _Broken("the box answered with something else than expected") from error
        if not isinstance(answer, dict):
            raise _Broken("the box answered with something else than expected")
        return answer

    def read_into(self, target: IO[bytes], count: int) -> None:
        while count:
            piece = self.read_some(min(_CHUNK, count))
            target.write(piece)
            count -= len(piece)
            self._pace(len(piece))

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._wait(read=False)
            try:
                written = os.write(self._in, view)
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                raise _Broken("the stream ended early") from error
            view = view[written:]
            self._pace(written)


def _partial_path(path: str) -> str:
    """Where the beginning of a cut file is kept; the same place as rsync's."""
    folder, name = os.path.split(path)
    return os.path.join(folder, PARTIAL_DIR, name)


def _pull(route: Route, files: Sequence[RosterFile], pipes: _Pipes) -> int:
    partials = [os.path.join(route.near_root, _partial_path(file.path)) for file in files]
    offsets = [stream_peer.usable_bytes(partial, file.bytes) for partial, file in zip(partials, files)]
    wanted = [{"path": file.path, "offset": offset} for file, offset in zip(files, offsets)]
    pipes.write(json.dumps({"op": "send", "root": route.far_root, "files": wanted}).encode("utf-8") + b"\n")
    pipes.close_input()
    moved = 0
    for file, partial, offset in zip(files, partials, offsets):
        answer = pipes.read_answer()
        if answer.get("path") != file.path:
            raise _Broken("the box answered with something else than expected")
        if "error" in answer:
            continue  # settling will name it, and the others still come
        if answer.get("bytes") != file.bytes - offset:
            raise _Broken(f"{file.path} has another size than the manifest says")
        os.makedirs(os.path.dirname(partial), exist_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as target:
            target.truncate(offset)
            target.seek(offset)
            pipes.read_into(target, file.bytes - offset)
        os.replace(partial, os.path.join(route.near_root, file.path))
        moved += file.bytes - offset
    return moved


def _push(route: Route, files: Sequence[RosterFile], pipes: _Pipes) -> int:
    wanted = [{"path": file.path, "partial": _partial_path(file.path), "bytes": file.bytes} for file in files]
    pipes.write(json.dumps({"op": "receive", "root": route.far_root, "files": wanted}).encode("utf-8") + b"\n")
    offsets = pipes.read_answer().get("offsets")
    if not isinstance(offsets, list) or len(offsets) != len(files):
        raise _Broken("the box answered with something else than expected")
    moved = 0
    for file, offset in zip(files, offsets):
        if not isinstance(offset, int) or not 0 <= offset <= file.bytes:
            raise _Broken("the box answered with something else than expected")
        for piece in _pieces(os.path.join(route.near_root, file.path), offset, file.bytes):
            pipes.write(piece)
        moved += file.bytes - offset
    if pipes.read_answer().get("received") is not True:
        raise _Broken("the box did not receive everything")
    return moved


def _pieces(path: str, offset: int, size: int) -> Iterator[bytes]:
    """The bytes from ``offset`` to ``size``, filled up if the file became shorter: its hash then tells."""
    with open(path, "rb") as source:
        source.seek(offset)
        left = size - offset
        while left:
            piece = source.read(min(_CHUNK, left)) or b"\0" * min(_CHUNK, left)
            yield piece
            left -= len(piece)


# --- the loop of attempts -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Patience:
    """``retries``: failed attempts in a row without progress; ``resends``: times that arrived files were wrong."""

    retries: int = 5
    resends: int = 2
    first_wait_s: float = 2.0


@dataclass(frozen=True)
class Delivery:
    """What the attempts came to. ``missing`` names what did not arrive and why; empty means that all did."""

    settled: tuple[str, ...]
    missing: tuple[Mismatch, ...]
    attempts: int
    wire_bytes: int
    reason: str = ""


def deliver(
    files: Sequence[RosterFile],
    move: Callable[[Sequence[RosterFile]], Attempt],
    settle: Callable[[Sequence[RosterFile]], tuple[list[str], list[Mismatch]]],
    progress: Callable[[], int],
    patience: Patience,
    deadline: Deadline,
    sleep: Callable[[float], None] = time.sleep,
) -> Delivery:
    """Attempt, settle, and again for what is still missing, within ``patience`` and ``deadline``.

    :param progress: a number that grows while bytes arrive; growth makes a failed attempt count as a first one.
    """
    remaining = list(files)
    settled: list[str] = []
    attempts = failures = resends = wire_bytes = 0
    waits = back_off(patience.first_wait_s)
    seen, reason = progress(), ""
    missing: list[Mismatch] = []
    while remaining:
        attempt = move(remaining)
        attempts += 1
        wire_bytes += attempt.wire_bytes or 0
        arrived, missing = settle(remaining)
        settled += arrived
        remaining = [file for file in remaining if file.path not in set(arrived)]
        reason = attempt.reason
        if not remaining:
            break
        now = progress()
        if arrived or now > seen:
            failures, waits = 0, back_off(patience.first_wait_s)
        seen = now
        failures += attempt.status != 0
        resends += attempt.status == 0
        hopeless = attempt.status != 0 and not attempt.again
        if hopeless or failures > patience.retries or resends > patience.resends or deadline.passed:
            break
        sleep(min(next(waits), deadline.left_s))
    if remaining and not missing:
        missing = [Mismatch(file.path, "did not arrive") for file in remaining]
    return Delivery(tuple(settled), tuple(missing) if remaining else (), attempts, wire_bytes, reason)


def bytes_under(folder: str) -> int:
    """Bytes of all files below ``folder``, the cut ones too."""
    total = 0
    for parent, _folders, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def wants_own_connection(files: Sequence[RosterFile]) -> bool:
    return sum(file.bytes for file in files) >= BULK_BYTES
