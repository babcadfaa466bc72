# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One attempt to move bytes by a plain stream over ssh, hashed as it passes. The far end is ``stream_peer``."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import io
import json
import os
import select
import subprocess
import time
import zlib
from dataclasses import replace
from typing import Any, Callable, Iterator, Sequence

from . import stream_peer
from .box.names import UnsafeName, printable
from .carrier import END_GRACE_S, Deadline, Route, widen_pipe
from .error_tail import ErrorTail
from .landing import Landing
from .progress import Progress
from .roster import RosterFile
from .settling import EVIDENCE, OTHER_BYTES, name_of
from .ssh_log import SshLog
from .transfer import PARTIAL_DIR, Attempt, RsyncWishes, far_argv, judge_error, judge_ssh, says_full

_CHUNK = 256 * 1024
# A smooth flow under a bandwidth limit.
_LIMITED_CHUNK = 32 * 1024
_MAX_LINE = 64 * 1024 * 1024
_MAX_REASON = 200
# A broken stream has nothing left to say; its ssh may wait for a silent box for ever.
_BROKEN_GRACE_S = 1
_NONSENSE = "the box answered with something else than expected"


class _Broken(Exception):
    """The stream ended, stalled or spoke nonsense; the text says which."""


def move_by_stream(route: Route, files: Sequence[RosterFile], deadline: Deadline, own_connection: bool) -> Attempt:
    """One connection that carries ``files`` without rsync, each from where it was cut."""
    # The standard library is all it needs: nothing of the box's is looked for, in whatever folder it starts.
    far = [route.python, "-I", "-S", "-c", inspect.getsource(stream_peer)]
    with ErrorTail() as errors, SshLog() as log:
        link, own_connection = route.way(deadline, own_connection)
        argv = far_argv(replace(link, log=log.path), far, own_connection)
        # There is no AnsibleModule here whose run_command could be used: this also runs without Ansible.
        with subprocess.Popen(  # pylint: disable=ansible-bad-function
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors.fileno()
        ) as process:
            pipes = _Pipes(process, route.wishes, deadline, route.progress)
            reason, own = "", None
            try:
                (_pull if route.pull else _push)(route, files, pipes)
            except (_Broken, EOFError, UnsafeName, zlib.error) as error:
                reason = str(error) or "the stream ended early"
            except OSError as error:
                own = judge_error("stream", error)
            finally:
                _close(process, _BROKEN_GRACE_S if reason else END_GRACE_S)
        if own:
            return own
        if reason:
            stderr = errors.read()
            # What is pulled is written by this process itself, so a box has nothing to say about this disk.
            full = not route.pull and says_full(stderr)
            return judge_ssh(process.returncode, stderr, reason, full, log.read())
    return Attempt("stream", 0, wire_bytes=pipes.carried)


def _close(process: subprocess.Popen[bytes], grace_s: float) -> None:
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()
    try:
        process.wait(timeout=grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class _Pipes(io.RawIOBase):
    """Reads and writes that give up after a stall, at the deadline, or when a bandwidth limit says wait.

    ``carried`` is how many bytes of files passed, as they are on the disks.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], wishes: RsyncWishes, deadline: Deadline, progress: Progress
    ) -> None:
        super().__init__()
        if process.stdin is None or process.stdout is None:
            raise ValueError("the process has no pipes")
        self._in, self._out = process.stdin.fileno(), process.stdout.fileno()
        self.close_input: Callable[[], None] = process.stdin.close
        os.set_blocking(self._in, False)
        for descriptor in (self._in, self._out):
            widen_pipe(descriptor)
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(self._out, select.POLLIN)
        self._writable.register(self._in, select.POLLOUT)
        self._wishes, self._deadline, self._progress = wishes, deadline, progress
        self._begun, self._paced = time.monotonic(), 0
        self.carried = 0
        self._source = io.BufferedReader(self, _CHUNK)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """For the buffered reader on top."""
        self._wait(self._readable)
        view = memoryview(buffer)
        count = os.readv(self._out, [view[:_LIMITED_CHUNK] if self._wishes.limit_kib else view])
        self._pace(count)
        return count

    def stream(self, deflate: bool) -> stream_peer.In:
        return stream_peer.In(self._source, deflate)

    def counted(self, count: int) -> None:
        self.carried += count
        self._progress.moved(count)

    def _wait(self, poll: select.poll) -> None:
        patience = min(float(self._wishes.stall_timeout_s), self._deadline.left_s)
        if not poll.poll(patience * 1000):
            raise _Broken("no data for too long" if not self._deadline.passed else "it took longer than its deadline")

    def _pace(self, count: int) -> None:
        """Wait as long as the bandwidth limit asks, no longer than the deadline."""
        self._paced += count
        if self._wishes.limit_kib:
            due = self._paced / (self._wishes.limit_kib * 1024) - (time.monotonic() - self._begun)
            if due > 0:
                time.sleep(min(due, self._deadline.left_s))
        if self._deadline.passed:
            raise _Broken("it took longer than its deadline")

    def read_answer(self) -> dict[str, Any]:
        """One JSON line from the box, bounded, of whatever the box chose to say."""
        line = self._source.readline(_MAX_LINE)
        if not line.endswith(b"\n"):
            raise _Broken("the stream ended early" if len(line) < _MAX_LINE else _NONSENSE)
        try:
            answer = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise _Broken(_NONSENSE) from error
        if not isinstance(answer, dict):
            raise _Broken(_NONSENSE)
        return answer

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._wait(self._writable)
            try:
                written = os.write(self._in, view[:_LIMITED_CHUNK] if self._wishes.limit_kib else view)
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


def _request(pipes: _Pipes, route: Route, **more: Any) -> None:
    request = {"root": route.far_root, "deflate": route.wishes.compress, **more}
    pipes.send(json.dumps(request).encode("utf-8") + b"\n")


# --- pulling ------------------------------------------------------------------------------------------------------


def _pull(route: Route, files: Sequence[RosterFile], pipes: _Pipes) -> None:
    offsets = _offsets(route.near_root, files)
    wanted = [[file.path, file.bytes, offset] for file, offset in zip(files, offsets)]
    _request(pipes, route, op="send", files=wanted)
    route.progress.found(sum(offsets))
    pipes.close_input()
    stream = pipes.stream(route.wishes.compress)
    landing = route.incoming
    for file, offset in zip(files, offsets):
        status = stream.read_exactly(1)
        if status == stream_peer.NOT_SENT:
            landing.refuse(file, _reason(stream))
        elif status != stream_peer.SENT:
            raise _Broken(_NONSENSE)
        elif file.bytes <= stream_peer.SMALL and not offset:
            data = stream.read_exactly(file.bytes)
            pipes.counted(len(data))
            _land_small(landing, file, data)
        else:
            _land_large(landing, file, offset, stream, pipes)


def _offsets(root: str, files: Sequence[RosterFile]) -> list[int]:
    """How much of each file arrived before."""
    beginnings: dict[str, dict[str, int]] = {}
    offsets = []
    for file in files:
        folder, _slash, name = file.path.rpartition("/")
        if folder not in beginnings:
            beginnings[folder] = _sizes_in(os.path.join(root, folder, PARTIAL_DIR))
        have = beginnings[folder].get(name, 0)
        offsets.append(have if have <= file.bytes else 0)
    return offsets


def _sizes_in(folder: str) -> dict[str, int]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return {entry.name: stream_peer.usable_bytes(entry.path, 1 << 63) for entry in entries}
    return {}


def _reason(stream: stream_peer.In) -> str:
    """Why the box does not send a file, in its own words: bounded, and nothing in them but plain characters."""
    text = stream.read_exactly(int.from_bytes(stream.read_exactly(2), "big"))
    return printable(text.decode("utf-8", "replace"))[:_MAX_REASON] or "is not sent"


def _land_small(landing: Landing, file: RosterFile, data: bytes) -> None:
    """Compared before it is written: wrong bytes never touch the disk."""
    if hashlib.sha256(data).hexdigest() != file.sha256:
        landing.refuse(file, OTHER_BYTES)
        return
    folder = landing.settler.enter(file)
    facts = stream_peer.write_whole(name_of(file), data, folder)
    what = landing.move(file, facts.st_mode)
    if what:
        landing.refuse(file, what)


def _land_large(landing: Landing, file: RosterFile, offset: int, stream: stream_peer.In, pipes: _Pipes) -> None:
    partial = os.path.join(landing.staging, _partial_path(file.path))
    os.makedirs(os.path.dirname(partial), exist_ok=True)

    def read_into(view: memoryview) -> int:
        count = stream.read_into(view)
        pipes.counted(count)
        return count

    sha256, facts = stream_peer.receive_rest(partial, offset, file.bytes, read_into)
    if not sha256:
        # Its beginning came in an earlier attempt; it is read whole when it settles.
        os.replace(partial, os.path.join(landing.staging, file.path))
    elif sha256 != file.sha256:
        os.unlink(partial)
        landing.refuse(file, OTHER_BYTES)
    elif facts.st_size == file.bytes:
        what = landing.move(file, facts.st_mode, os.path.join(PARTIAL_DIR, name_of(file)))
        if what:
            landing.refuse(file, what)


# --- pushing ------------------------------------------------------------------------------------------------------


def _push(route: Route, files: Sequence[RosterFile], pipes: _Pipes) -> None:
    wanted = [[file.path, _partial_path(file.path), file.bytes] for file in files]
    _request(pipes, route, op="receive", evidence=EVIDENCE, files=wanted)
    offsets = _far_offsets(pipes.read_answer(), files)
    route.progress.found(sum(offsets))
    deflate = zlib.compressobj(1) if route.wishes.compress else None
    for data in _gathered(route.near_root, files, offsets, pipes):
        pipes.send(deflate.compress(data) if deflate else data)
    if deflate:
        pipes.send(deflate.flush())
    if pipes.read_answer().get("received") is not True:
        raise _Broken("the box did not receive everything")


def _far_offsets(answer: dict[str, Any], files: Sequence[RosterFile]) -> list[int]:
    offsets = [0] * len(files)
    found = answer.get("offsets")
    if not isinstance(found, list):
        raise _Broken(_NONSENSE)
    for pair in found:
        try:
            index, offset = pair
            fits = isinstance(offset, int) and index >= 0 and 0 <= offset <= files[index].bytes
        except (TypeError, ValueError, IndexError) as error:
            raise _Broken(_NONSENSE) from error
        if not fits:
            raise _Broken(_NONSENSE)
        offsets[index] = offset
    return offsets


def _gathered(root: str, files: Sequence[RosterFile], offsets: Sequence[int], pipes: _Pipes) -> Iterator[bytes]:
    """The bytes of all files, small ones many at a time."""
    gathered = bytearray()
    for file, offset in zip(files, offsets):
        for piece in _pieces(os.path.join(root, file.path), offset, file.bytes):
            pipes.counted(len(piece))
            gathered += piece
            if len(gathered) >= _CHUNK:
                yield bytes(gathered)
                gathered.clear()
    yield bytes(gathered)


def _pieces(path: str, offset: int, size: int) -> Iterator[bytes]:
    """The bytes from ``offset`` to ``size``, filled up if the file became shorter: its hash then tells."""
    with open(path, "rb", buffering=0) as source:
        source.seek(offset)
        left = size - offset
        while left:
            wanted = min(_CHUNK, left)
            piece = source.read(wanted) or b"\0" * wanted
            yield piece
            left -= len(piece)
