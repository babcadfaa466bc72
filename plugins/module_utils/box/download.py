# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One file from the network: continued inside the file after a cut, within bounds, never trusted for having arrived.

The note beside a partial file holds the validator that its bytes belong to. It saves bytes and proves nothing: the
caller compares the whole file's hash.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import re
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping

from . import gates, http_get, records, urls
from .http_get import CUT, DEADLINE, FULL, WRONG, Answer, Call, HttpProblem

_CHUNK = 256 * 1024
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)\Z")
_PAST_END = re.compile(r"bytes \*/(\d+)\Z")
_GIVEN_BACK = 256 * 1024
# Slower than this over a whole stall time is a connection that only pretends to live.
LEAST_BYTES_PER_S = 1024.0


class Stopped(Exception):
    """Somebody asked this process to end; what arrived is kept."""


@dataclass(frozen=True)
class Patience:
    """``deadline`` is a moment of :func:`time.monotonic`; ``tries`` counts only tries in a row that brought nothing."""

    deadline: float
    stall_s: float = 60.0
    tries: int = 8
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    stop: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        if self.stop.is_set():
            raise Stopped
        if time.monotonic() > self.deadline:
            raise HttpProblem(DEADLINE, "the deadline passed")

    def pause(self, seconds: float) -> None:
        self.stop.wait(max(0.0, min(seconds, self.deadline - time.monotonic())))
        self.check()


@dataclass(frozen=True)
class Source:
    """``bytes`` is None when nobody said how large it is. ``reserve`` bytes stay free on the disk."""

    url: str
    secret_headers: Mapping[str, str]
    bytes: int | None = None
    reserve: int = 0
    route: str = ""


class Download:
    """Brings a source to ``path``. Everything it knows lies on the disk, so a new one goes on where this one ended."""

    def __init__(self, source: Source, path: str, patience: Patience, arrived: Callable[[int], None]) -> None:
        self._source = source
        self._path = path
        self._note_path = f"{path}.note"
        self._patience = patience
        self._arrived = arrived
        self._gained = 0
        self._restarts = 0

    def run(self) -> None:
        """Until every byte is there. :raises HttpProblem: it cannot come, or not within the patience."""
        fruitless, wait_s = 0, self._patience.first_wait_s
        while True:
            self._patience.check()
            self._gained = 0
            try:
                self._continue()
                return
            except HttpProblem as problem:
                if not problem.again:
                    raise
                fruitless = 0 if self._gained else fruitless + 1
                if fruitless >= self._patience.tries:
                    text = f"{problem} ({fruitless} tries in a row brought nothing)"
                    raise HttpProblem(problem.kind, text) from problem
                wait_s = self._patience.first_wait_s if self._gained else wait_s
                self._patience.pause(max(wait_s, problem.wait_s))
                wait_s = min(wait_s * 2, self._patience.longest_wait_s)

    @property
    def encoding(self) -> str:
        """The content encoding that the bytes have, empty for none."""
        return str(self._note().get("encoding", ""))

    @property
    def is_doubtful(self) -> bool:
        """Whether it was pieced together from several answers, or the server never said how long it is."""
        return bool(self._note().get("pieced", True))

    def forget(self) -> None:
        """Begin with the first byte the next time."""
        for path in (self._path, self._note_path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    # --- one try ----------------------------------------------------------------------------------------------

    def _continue(self) -> None:
        note = self._note()
        offset = self._size() if note else 0
        if note and note.get("total") == offset:
            return
        source = self._source
        headers = _range_headers(offset, note)
        call = Call(source.url, headers, source.secret_headers, self._patience.stall_s, route=source.route)
        with http_get.opened(call) as answer:
            if answer.status == 416:
                self._past_the_end(answer, offset)
                return
            if answer.status == 206:
                self._check_range(answer, offset, note)
            else:
                # The server knows no ranges, or has another version by now: this answer is the file from its start.
                if offset:
                    self._start_over()
                offset = 0
            self._take(answer, offset)

    def _past_the_end(self, answer: Answer, offset: int) -> None:
        """The file may be shorter now, or whole already: a server need not say 206 for nothing."""
        found = _PAST_END.match(answer.headers.get("content-range", ""))
        if found and int(found.group(1)) == offset and offset:
            self._write_note(dict(self._note(), total=offset))
            return
        self.forget()
        self._start_over()
        raise HttpProblem(CUT, f"{self._shown} is not what it was when the transfer began")

    def _start_over(self) -> None:
        """Bytes that came are to come again, which bills and may never end."""
        self._restarts += 1
        if self._restarts >= self._patience.tries:
            raise HttpProblem(
                http_get.REFUSED, f"{self._shown} was taken from its start {self._restarts} times in vain"
            )

    def _check_range(self, answer: Answer, offset: int, note: Mapping[str, Any]) -> None:
        found = _RANGE.match(answer.headers.get("content-range", ""))
        same = _validator(answer) == note.get("validator") and _encoding(answer) == note.get("encoding")
        if found and int(found.group(1)) == offset and same:
            return
        self.forget()
        self._start_over()
        raise HttpProblem(CUT, f"{self._shown} is not what it was when the transfer began")

    def _take(self, answer: Answer, offset: int) -> None:
        rest = answer.headers.get("content-length", "")
        total = offset + int(rest) if rest.isdigit() else None
        encoding = _encoding(answer)
        if None not in (total, self._source.bytes) and total != self._source.bytes and not encoding:
            raise HttpProblem(WRONG, f"{self._shown} has {total} bytes and not the promised {self._source.bytes}")
        with self._on_disk() as descriptor:
            os.ftruncate(descriptor, offset)
            self._check_space((total or self._source.bytes or 0) - offset)
            self._write_note(
                {
                    "validator": _validator(answer),
                    "encoding": encoding,
                    "total": total,
                    "pieced": offset > 0 or total is None,
                }
            )
            self._copy(answer, descriptor, offset, total)
            os.fsync(descriptor)
        if total is None:
            self._write_note(dict(self._note(), total=self._size()))

    def _copy(self, answer: Answer, descriptor: int, offset: int, total: int | None) -> None:
        pace = _Pace(self._patience.stall_s)
        while total is None or offset < total:
            self._patience.check()
            chunk = self._next(answer)
            if not chunk:
                break
            _write_all(descriptor, chunk, offset)
            offset += len(chunk)
            self._gained += len(chunk)
            self._arrived(len(chunk))
            if not pace.holds(len(chunk)):
                raise HttpProblem(CUT, f"{self._shown} hardly sends anything")
        if total is not None and offset < total:
            raise HttpProblem(CUT, f"{self._shown} was cut after {offset} of {total} bytes")

    def _next(self, answer: Answer) -> bytes:
        try:
            return answer.stream.read1(_CHUNK)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise http_get.unreachable(self._source.url, error) from error

    # --- the disk ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _on_disk(self) -> Any:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = -1
        try:
            descriptor = os.open(self._path, flags, 0o600)
            yield descriptor
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                if descriptor >= 0:
                    # Room for the record of what happened; these bytes come again.
                    os.ftruncate(descriptor, max(0, os.fstat(descriptor).st_size - _GIVEN_BACK))
                raise HttpProblem(FULL, f"the disk is full while {self._shown} arrives") from error
            raise
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _check_space(self, wanted: int) -> None:
        free = gates.disk_of(os.path.dirname(self._path)).free_bytes
        if wanted + self._source.reserve > free:
            text = f"{self._shown} still needs {wanted} bytes and {self._source.reserve} must stay free; {free} are"
            raise HttpProblem(FULL, text)

    def _size(self) -> int:
        try:
            return os.path.getsize(self._path)
        except OSError:
            return 0

    def _note(self) -> dict[str, Any]:
        try:
            with open(self._note_path, "rb") as stream:
                found = json.loads(stream.read().decode("utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write_note(self, note: dict[str, Any]) -> None:
        records.write_bytes(self._note_path, json.dumps(note, sort_keys=True).encode("utf-8"))

    @property
    def _shown(self) -> str:
        return urls.shown(self._source.url)


class _Pace:
    """Whether enough arrived in every stretch of ``window_s`` seconds."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._since, self._bytes = time.monotonic(), 0

    def holds(self, count: int) -> bool:
        self._bytes += count
        passed = time.monotonic() - self._since
        if passed < self._window_s:
            return True
        enough = self._bytes >= LEAST_BYTES_PER_S * passed
        self._since, self._bytes = time.monotonic(), 0
        return enough


def _range_headers(offset: int, note: Mapping[str, Any]) -> dict[str, str]:
    """What is still missing, and only of the version whose beginning is here."""
    if not offset:
        return {}
    validator = str(note.get("validator") or "")
    return {"Range": f"bytes={offset}-", **({"If-Range": validator} if validator else {})}


def _validator(answer: Answer) -> str:
    """A strong ETag, else the date: a weak ETag must not be used for ranges (RFC 9110, 13.1.5)."""
    etag = answer.headers.get("etag", "")
    return etag if etag.startswith('"') else answer.headers.get("last-modified", "")


def _encoding(answer: Answer) -> str:
    found = answer.headers.get("content-encoding", "").strip().lower()
    return "" if found == "identity" else found


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def read_patiently(call: Call, patience: Patience) -> tuple[Mapping[str, str], bytes]:
    """A small answer whole, asked for again while that can help."""
    wait_s = patience.first_wait_s
    for left in range(patience.tries, -1, -1):
        patience.check()
        try:
            return http_get.read(call)
        except HttpProblem as problem:
            if not problem.again or left <= 1:
                raise
            patience.pause(max(wait_s, problem.wait_s))
            wait_s = min(wait_s * 2, patience.longest_wait_s)
    raise AssertionError("a patience has at least one try")
