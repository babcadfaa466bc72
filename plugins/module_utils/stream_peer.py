# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The far end of a transfer where there is no rsync: one process, one connection, no answer awaited between files.

Runs on the box as ``python -c <this file>``, so it imports nothing of ours. One JSON line on standard input says what
is wanted; ``deflate`` asks for what follows the first lines to be compressed, for text on a slow link:

* ``{"op": "send", "root", "deflate", "files": [[path, bytes, offset], …]}``: for each file, in order, either a byte 0
  and exactly ``bytes - offset`` bytes from ``offset`` on, or a byte 1, a length of two bytes, and why it is not sent.
* ``{"op": "receive", "root", "deflate", "evidence", "files": [[path, partial, bytes], …]}``: answers a JSON line
  ``{"offsets": [[index, offset], …]}`` with what arrived before, reads the rest of every file, in order, and ends with
  ``{"received": true}``. What was hashed as it arrived is written to ``evidence``, with the inode that it went to.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import stat
import sys
import threading
import zlib
from typing import Any, BinaryIO, Callable

CHUNK = 1024 * 1024
# Up to this size a file is carried in one piece: cut, it begins anew.
SMALL = 64 * 1024
SENT, NOT_SENT = b"\0", b"\1"
# Follows no link and waits for no writer of a FIFO.
TO_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Folders:
    """Folders below a root, each resolved once."""

    def __init__(self, root: str) -> None:
        self._root = os.path.realpath(root).rstrip("/") + "/"
        self._known: dict[str, str] = {}

    def contained(self, path: str) -> str:
        """The absolute path of root/path; ValueError when it leads elsewhere."""
        parent, _slash, name = path.rpartition("/")
        if parent not in self._known:
            real = os.path.realpath(self._root + parent) + "/"
            if path.startswith("/") or ".." in path.split("/") or not real.startswith(self._root):
                raise ValueError("leads out of its folder through a symlink")
            self._known[parent] = real
        if name in ("", ".", ".."):
            raise ValueError("is not a file's name")
        return self._known[parent] + name


class Out:
    """Standard output: small pieces are gathered, large files go from the disk to the pipe by the kernel alone."""

    def __init__(self, descriptor: int, deflate: bool) -> None:
        self._descriptor = descriptor
        self._deflate = zlib.compressobj(1) if deflate else None
        self._gathered = bytearray()

    def write(self, data: bytes) -> None:
        self._gathered += self._deflate.compress(data) if self._deflate else data
        if len(self._gathered) >= CHUNK // 4:
            self.flush()

    def flush(self) -> None:
        view = memoryview(bytes(self._gathered))
        self._gathered.clear()
        while view:
            view = view[os.write(self._descriptor, view) :]

    def end(self) -> None:
        if self._deflate:
            self._gathered += self._deflate.flush()
        self.flush()

    def copy(self, source: int, offset: int, size: int) -> None:
        """The bytes of an open file; one that shrinks meanwhile is filled up: its hash then tells."""
        offset = offset if self._deflate else self._by_kernel(source, offset, size)
        while offset < size:
            data = os.pread(source, min(CHUNK // 4, size - offset), offset) or b"\0" * min(CHUNK // 4, size - offset)
            self.write(data)
            offset += len(data)

    def _by_kernel(self, source: int, offset: int, size: int) -> int:
        self.flush()
        try:
            while offset < size:
                sent = os.sendfile(self._descriptor, source, offset, min(CHUNK, size - offset))
                if not sent:
                    break
                offset += sent
        except BrokenPipeError:
            raise
        except (AttributeError, OSError):
            pass  # not every filesystem and every pipe can; then it is copied
        return offset


def send(request: dict[str, Any], descriptor: int) -> None:
    out, folders = Out(descriptor, request["deflate"]), Folders(request["root"])
    for path, size, offset in request["files"]:
        try:
            source = open_to_send(folders.contained(path), size)
        except (OSError, ValueError) as error:
            why = (error.strerror if isinstance(error, OSError) else str(error)) or "cannot be read"
            text = why.encode("utf-8")[:1000]
            out.write(NOT_SENT + len(text).to_bytes(2, "big") + text)
            continue
        try:
            out.write(SENT)
            if size - offset <= SMALL:
                data = os.pread(source, size - offset, offset)
                out.write(data if len(data) == size - offset else data.ljust(size - offset, b"\0"))
            else:
                out.copy(source, offset, size)
        finally:
            os.close(source)
    out.end()


def open_to_send(place: str, size: int) -> int:
    try:
        descriptor = os.open(place, TO_READ)
    except OSError:
        if stat.S_ISREG(os.lstat(place).st_mode):
            raise
        raise ValueError("is not a regular file") from None
    facts = os.fstat(descriptor)
    if stat.S_ISREG(facts.st_mode) and facts.st_size == size:
        return descriptor
    os.close(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        raise ValueError("is not a regular file")
    raise ValueError(f"has another size ({facts.st_size} bytes) than the manifest says ({size})")


# --- receiving, at either end --------------------------------------------------------------------------------------


class Hasher:
    """SHA-256 of pieces in another thread, so that the next piece is read while this one is hashed."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._full: queue.Queue[Any] = queue.Queue()
        self._free: queue.Queue[bytearray] = queue.Queue()
        for _unused in range(4):
            self._free.put(bytearray(CHUNK))
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while True:
            piece = self._full.get()
            if piece is None:
                return
            buffer, count = piece
            self._hash.update(memoryview(buffer)[:count])
            self._free.put(buffer)

    def buffer(self) -> bytearray:
        return self._free.get()

    def give(self, buffer: bytearray, count: int) -> None:
        self._full.put((buffer, count))

    def hexdigest(self) -> str:
        """The hash of all pieces; the thread ends."""
        self._full.put(None)
        self._thread.join()
        return self._hash.hexdigest()


def receive_rest(
    partial: str, offset: int, size: int, read_into: Callable[[memoryview], int]
) -> tuple[str, os.stat_result]:
    """Write the rest of a file as it is read; what did arrive is kept if reading ends early.

    Returns (SHA-256 of the file, empty unless it came in one piece; what stands there then).
    """
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    hasher = Hasher()
    try:
        os.ftruncate(descriptor, offset)
        os.lseek(descriptor, offset, os.SEEK_SET)
        position = offset
        while position < size:
            buffer = hasher.buffer()
            count = read_into(memoryview(buffer)[: size - position])
            if not count:
                raise EOFError("the stream ended early")
            write_all(descriptor, memoryview(buffer)[:count])
            hasher.give(buffer, count)
            position += count
        facts = os.fstat(descriptor)
    finally:
        sha256 = hasher.hexdigest()
        os.close(descriptor)
    return ("" if offset else sha256), facts


def identity(facts: os.stat_result) -> list[int]:
    """What a file is as long as nobody writes to it or replaces it."""
    return [facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns]


def write_all(descriptor: int, view: memoryview) -> None:
    while view:
        view = view[os.write(descriptor, view) :]


class In:
    """A buffered stream, perhaps compressed, of which a known number of bytes is wanted next."""

    def __init__(self, source: BinaryIO, deflate: bool) -> None:
        self._source: Any = source
        self._inflate = zlib.decompressobj() if deflate else None
        self._left = b""

    def read_into(self, view: memoryview) -> int:
        """As many bytes as are there, at most as many as fit; 0 at the end."""
        if self._inflate is None:
            return self._source.readinto1(view) or 0
        while True:
            data = self._inflate.decompress(self._left, len(view))
            self._left = self._inflate.unconsumed_tail
            if data:
                view[: len(data)] = data
                return len(data)
            if self._inflate.eof:
                # Whatever follows would be kept by zlib, and copied with each piece, for as long as somebody sends.
                return 0
            if not self._left:
                self._left = self._source.read1(CHUNK // 4)
                if not self._left:
                    return 0

    def read_exactly(self, size: int) -> bytes:
        """``size`` bytes; EOFError when the stream ends before."""
        if self._inflate is None:
            data = self._source.read(size) if size else b""
        else:
            gathered, filled = bytearray(size), 0
            while filled < size:
                count = self.read_into(memoryview(gathered)[filled:])
                filled = filled + count if count else size + 1
            data = bytes(gathered) if filled == size else b""
        if len(data) != size:
            raise EOFError("the stream ended early")
        return bytes(data)


def receive(request: dict[str, Any], source: BinaryIO, descriptor: int) -> None:
    folders, evidence = Folders(request["root"]), []
    places = [(folders.contained(path), folders.contained(partial)) for path, partial, _size in request["files"]]
    sizes = [size for _path, _partial, size in request["files"]]
    offsets = [usable_bytes(partial, size) for (_place, partial), size in zip(places, sizes)]
    answer(descriptor, {"offsets": [[index, offset] for index, offset in enumerate(offsets) if offset]})
    stream = In(source, request["deflate"])
    try:
        for (place, partial), size, offset in zip(places, sizes, offsets):
            if size <= SMALL and not offset:
                data = stream.read_exactly(size)
                evidence.append([identity(write_whole(place, data)), hashlib.sha256(data).hexdigest()])
                continue
            os.makedirs(os.path.dirname(partial), exist_ok=True)
            sha256, facts = receive_rest(partial, offset, size, stream.read_into)
            os.replace(partial, place)
            if sha256:
                evidence.append([identity(facts), sha256])
    except EOFError:
        return
    with open(folders.contained(request["evidence"]), "w", encoding="ascii") as notes:
        json.dump(evidence, notes)
    answer(descriptor, {"received": True})


def write_whole(place: str, data: bytes, folder: int | None = None) -> os.stat_result:
    """Write a small file in one go, perhaps relative to an open folder; what stands there then."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(place, flags, 0o666, dir_fd=folder)
    try:
        write_all(descriptor, memoryview(data))
        facts = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return facts


def usable_bytes(partial: str, size: int) -> int:
    """How much of the file arrived before; 0 when what lies there cannot be its beginning."""
    try:
        facts = os.lstat(partial)
    except OSError:
        return 0
    return facts.st_size if stat.S_ISREG(facts.st_mode) and facts.st_size <= size else 0


def answer(descriptor: int, value: dict[str, Any]) -> None:
    view = memoryview(json.dumps(value).encode("ascii") + b"\n")
    write_all(descriptor, view)


def main() -> None:
    source, descriptor = os.fdopen(sys.stdin.fileno(), "rb", CHUNK, closefd=False), sys.stdout.fileno()
    request = json.loads(source.readline().decode("utf-8"))
    if request["op"] == "send":
        send(request, descriptor)
    else:
        receive(request, source, descriptor)


if __name__ == "__main__":
    main()
