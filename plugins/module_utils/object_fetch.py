# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Bringing objects into a staging folder, in segments over several connections, continued where they were cut.

Which segments of a staged file came is noted beside it. The note saves bytes and proves nothing: the file's SHA-256,
taken before it is put in its place, does.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import threading
from dataclasses import dataclass
from typing import Iterable, Iterator, Sequence

from .box.hashing import Identity, identity
from .box.names import UnsafeName, inside
from .failures import TenantFailure
from .object_client import Readable, version_of
from .object_parts import MIB
from .object_requests import BUSY, CHUNK, MISSING, REFUSED, Patience, Request, Session, StoreProblem, run_all
from .object_store import StoredFile, presigned
from .progress import Progress
from .roster import Mismatch
from .settling import Evidence

SEGMENT_BYTES = 32 * MIB
# No path of a roster begins so.
_NOTES = ".tenant-segments"


@dataclass
class Download:
    """What one attempt brought. ``reason`` says why some that may still come did not.

    ``evidence`` is the SHA-256 of each complete file, taken while the rest arrived.
    """

    complete: frozenset[str]
    missing: tuple[Mismatch, ...]
    reason: str
    bytes: int
    evidence: Evidence


def download(
    client: Readable,
    entries: Sequence[StoredFile],
    folder: str,
    patience: Patience,
    connections: int,
    progress: Progress,
) -> Download:
    """Bring ``entries`` to ``folder/<path>``. TenantFailure when the store refuses or nothing can be written there."""
    staged = [_Staged(folder, entry) for entry in entries]
    jobs = [(file, number) for file in staged for number in file.missing_segments()]
    counter = _Counter(progress)
    for file in staged:
        progress.found(file.bytes_there)

    def work(session: Session, job: tuple[_Staged, int]) -> None:
        _bring(client, session, job[0], job[1], counter)

    results = run_all(jobs, work, patience, connections)
    missing, reason = _judge(client, [(job[0].entry, result) for job, result in zip(jobs, results)])
    gone = {mismatch.path for mismatch in missing}
    complete = [file for file in staged if not file.missing_segments() and file.entry.path not in gone]
    evidence = dict(file.evidence for file in complete if file.evidence is not None)
    return Download(frozenset(file.entry.path for file in complete), tuple(missing), reason, counter.bytes, evidence)


def forget(folder: str, paths: Iterable[str]) -> None:
    """Files that came whole and were wrong are to be brought from their first byte."""
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(_note_path(folder, path))


def _judge(client: Readable, results: Sequence[tuple[StoredFile, StoreProblem | None]]) -> tuple[list[Mismatch], str]:
    missing: dict[str, Mismatch] = {}
    reason = ""
    for entry, problem in results:
        if problem is None:
            continue
        if problem.kind == REFUSED:
            raise TenantFailure(
                "config",
                f"{client.location.uri}/{entry.path} at {client.location.where} cannot be fetched: {problem}",
                safe="Nothing was removed anywhere, and what arrived is kept",
                fix=client.location.reading_fix,
            )
        if problem.kind == MISSING:
            missing[entry.path] = Mismatch(entry.path, f"is missing from {client.location.uri}")
        else:
            reason = reason or f"{client.location.where} did not give everything ({problem})"
    return list(missing.values()), reason


class _Counter:
    def __init__(self, progress: Progress) -> None:
        self.bytes, self._progress, self._lock = 0, progress, threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self.bytes += count
            self._progress.moved(count)


# --- one staged file ----------------------------------------------------------------------------------------------


class _Staged:
    """A file of the staging folder that grows in any order. One of several segments has a note of those that came."""

    def __init__(self, folder: str, entry: StoredFile) -> None:
        self.folder, self.entry = folder, entry
        self.segments = max(1, -(-entry.bytes // SEGMENT_BYTES))
        self.done: set[int] = set()
        self._note = _note_path(folder, entry.path)
        self.evidence: tuple[Identity, str] | None = None
        self._lock, self._hashing = threading.Lock(), threading.Lock()
        self._hasher, self._hashed = hashlib.sha256(), 0
        with self._refusing():
            self._continue()

    @property
    def bytes_there(self) -> int:
        return min(self.entry.bytes, len(self.done) * SEGMENT_BYTES)

    def _continue(self) -> None:
        """Take up what an earlier attempt brought of this very object, or begin with an empty file of its size."""
        head = f"{self.entry.sha256} {self.entry.bytes} {SEGMENT_BYTES}\n".encode("ascii")
        with contextlib.closing(self._open()) as file:
            if self.segments > 1 and file.size() == self.entry.bytes:
                text = _read(self._note)
                lines = text[len(head) :].split(b"\n")[:-1] if text.startswith(head) else []
                self.done = {int(line) for line in lines if line.isdigit() and int(line) < self.segments}
            if not self.done:
                file.resize(self.entry.bytes)
        if self.segments > 1 and not self.done:
            os.makedirs(os.path.dirname(self._note), mode=0o700, exist_ok=True)
            _append(self._note, head, os.O_TRUNC)

    def _open(self) -> _File:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return _File(os.open(inside(self.folder, self.entry.path), flags, 0o600))

    def missing_segments(self) -> list[int]:
        return [number for number in range(self.segments) if number not in self.done]

    def open(self) -> _File:
        with self._refusing():
            return self._open()

    def mark(self, number: int) -> None:
        with self._lock, self._refusing():
            self.done.add(number)
            if self.segments > 1:
                _append(self._note, f"{number}\n".encode("ascii"), os.O_APPEND)

    def hash_on(self, file: _File) -> None:
        """Hash what is there without a gap, unless another connection is at it; the last one to come ends it."""
        while self._hashed in self.done and self._hashing.acquire(blocking=False):
            try:
                with self._refusing():
                    self._hash_next(file)
            finally:
                self._hashing.release()

    def _hash_next(self, file: _File) -> None:
        if self._hashed not in self.done:
            return
        start = self._hashed * SEGMENT_BYTES
        for offset in range(start, min(start + SEGMENT_BYTES, self.entry.bytes), CHUNK):
            self._hasher.update(os.pread(file.descriptor, min(CHUNK, self.entry.bytes - offset), offset))
        self._hashed += 1
        if self._hashed == self.segments:
            self.evidence = (identity(os.fstat(file.descriptor)), self._hasher.hexdigest())

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, UnsafeName) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise TenantFailure(
                "config",
                f"{self.folder}/{self.entry.path} cannot be written ({why})",
                safe="Nothing was put in its place, and what arrived is kept",
                fix="See that folder and the space there, then run the same task again: it continues",
            ) from error

    def write(self, file: _File, data: bytes, offset: int) -> None:
        with self._refusing():
            file.write(data, offset)


class _File:
    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def size(self) -> int:
        return os.fstat(self.descriptor).st_size

    def resize(self, size: int) -> None:
        os.ftruncate(self.descriptor, 0)
        os.ftruncate(self.descriptor, size)

    def write(self, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self.descriptor, view, offset)
            view, offset = view[written:], offset + written

    def close(self) -> None:
        os.close(self.descriptor)


def _note_path(folder: str, path: str) -> str:
    return os.path.join(folder, _NOTES, hashlib.sha256(path.encode("utf-8")).hexdigest())


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        return b""


def _append(path: str, data: bytes, how: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | how, 0o600)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def _bring(client: Readable, session: Session, staged: _Staged, number: int, counter: _Counter) -> None:
    entry = staged.entry
    start = number * SEGMENT_BYTES
    length = min(SEGMENT_BYTES, entry.bytes - start)
    with contextlib.closing(staged.open()) as file:
        if length:
            url = presigned(client, session.patience, "get_object", entry.path, **version_of(entry.version_id))
            segment = _Segment(staged, file, start, length, counter)
            session.send(Request("GET", url, resume=segment.resume), segment.take)
        staged.mark(number)
        staged.hash_on(file)


class _Segment:
    """A range of an object on its way to the disk, continued where a connection was cut."""

    def __init__(self, staged: _Staged, file: _File, start: int, length: int, counter: _Counter) -> None:
        self.staged, self.file, self.start, self.length, self.counter = staged, file, start, length, counter
        self.position = 0

    def resume(self) -> dict[str, str]:
        if self.length == self.staged.entry.bytes and not self.position:
            return {}
        return {"Range": f"bytes={self.start + self.position}-{self.start + self.length - 1}"}

    def take(self, response: http.client.HTTPResponse) -> None:
        if response.status != 206 and self.resume():
            raise StoreProblem(REFUSED, "it does not serve ranges")
        while self.position < self.length:
            chunk = response.read(min(CHUNK, self.length - self.position))
            if not chunk:
                raise StoreProblem(BUSY, "the answer was cut short")
            self.staged.write(self.file, chunk, self.start + self.position)
            self.position += len(chunk)
            self.counter.add(len(chunk))
