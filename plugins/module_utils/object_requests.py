# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Requests to an object store, most of them presigned, many at once, each tried again while that can help.

Runs on the box and on the controller. Whoever holds a presigned URL may do the one thing it is signed for until it
expires, so no URL ever stands in an error.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Mapping, Sequence, TypeVar
from urllib.parse import urlsplit

from .box.http_wire import connection, why_unreachable

CHUNK = 1024 * 1024
_MAX_ERROR = 64 * 1024
_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 20.0

UNREACHABLE = "unreachable"
BUSY = "busy"
CORRUPTED = "corrupted"
EXPIRED = "expired"
MISSING = "missing"
REFUSED = "refused"
CHANGED = "changed"
DEADLINE = "deadline"
_AGAIN = (UNREACHABLE, BUSY, CORRUPTED)
_REDIRECTS = (301, 302, 303, 307, 308)

# S3 API reference, "Error responses"; what is not listed here goes by the HTTP status.
_KINDS = {
    "BadDigest": CORRUPTED,
    "XAmzContentChecksumMismatch": CORRUPTED,
    "XAmzContentSHA256Mismatch": CORRUPTED,
    "IncompleteBody": CORRUPTED,
    "RequestTimeout": BUSY,
    "SlowDown": BUSY,
    "ExpiredToken": EXPIRED,
    "NoSuchKey": MISSING,
    "NoSuchVersion": MISSING,
    "NoSuchUpload": MISSING,
    "NoSuchBucket": MISSING,
}
_CODE = re.compile(rb"<Code>([A-Za-z0-9._-]{1,80})</Code>")
_MESSAGE = re.compile(rb"<Message>([^<>]{1,300})</Message>")
_URL = re.compile(r"[A-Za-z]+://\S+")
_WAIT = re.compile(r"[0-9]{1,6}\Z")
_RATE = re.compile(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*([0-9]{1,6})(?![0-9])")


class StoreProblem(Exception):
    """Why one request did not do what it was for. ``kind`` is one of the constants above.

    ``status`` is the HTTP status, 0 where there was no answer; ``code`` the store's own word for what is wrong;
    ``wait_s`` how long it asks to be left alone.
    """

    def __init__(self, kind: str, text: str, status: int = 0, code: str = "", wait_s: float = 0.0) -> None:
        super().__init__(text)
        self.kind = kind
        self.status, self.code, self.wait_s = status, code, wait_s


@dataclass(frozen=True)
class Patience:
    """``deadline`` is a moment of :func:`time.monotonic`; ``stall_timeout_s`` bounds each wait for the other side."""

    deadline: float
    stall_timeout_s: float = 60.0
    tries: int = 5

    def check(self) -> None:
        if time.monotonic() > self.deadline:
            raise StoreProblem(DEADLINE, "the deadline passed")


@dataclass(frozen=True)
class Request:
    """``body`` is called for every try, so that a second one starts from the first byte again.

    ``resume`` gives further headers for every try, such as the range that is still missing. A redirect is never
    followed: it is a refusal, or with ``redirects`` an answer like any other.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[], Iterable[bytes]] | None = None
    resume: Callable[[], Mapping[str, str]] | None = None
    redirects: bool = False


@dataclass
class Reply:
    headers: dict[str, str]
    body: bytes = b""
    status: int = 200


Job = TypeVar("Job")
Result = TypeVar("Result")
Taker = Callable[[http.client.HTTPResponse], None]


class Session:
    """One worker's kept-alive connection."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self._connection: http.client.HTTPConnection | None = None
        self._origin = ("", "")
        self._proxied: Mapping[str, str] | None = None
        self._used = False

    def send(self, request: Request, take: Taker | None = None) -> Reply:
        """The reply to ``request``; what can end better is tried again.

        :param take: reads a good reply's body instead of keeping it; called again for a second try.
        """
        wait = _FIRST_WAIT_S
        for number in range(1, self.patience.tries + 1):
            self.patience.check()
            try:
                return self._send(request, take)
            except StoreProblem as problem:
                if problem.kind not in _AGAIN or number == self.patience.tries:
                    raise
                pause = max(wait, problem.wait_s)
                if time.monotonic() + pause > self.patience.deadline:
                    # The reason says more than a deadline that passes while nothing is done.
                    raise
            time.sleep(pause)
            wait = min(wait * 2, _LONGEST_WAIT_S)
        raise AssertionError("a patience has at least one try")

    def _send(self, request: Request, take: Taker | None) -> Reply:
        reused = self._connect(request.url)
        try:
            return self._exchange(request, take)
        except StoreProblem:
            # A body that was broken off leaves a request half said: nothing more can be said on that connection.
            self.close()
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            if reused and isinstance(error, (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError)):
                # The store closed a connection that rested for too long: that is no failure of this request.
                return self._send(request, take)
            raise StoreProblem(UNREACHABLE, why_unreachable(error)) from error

    def _connect(self, url: str) -> bool:
        """Open a connection unless the open one serves; whether it had been used before."""
        parts = urlsplit(url)
        origin = (parts.scheme, parts.netloc)
        if self._connection is not None and origin == self._origin:
            return self._used
        self.close()
        self._connection, self._proxied = connection(parts.scheme, parts.netloc, self.patience.stall_timeout_s)
        self._origin, self._used = origin, False
        return False

    def _exchange(self, request: Request, take: Taker | None) -> Reply:
        connection = self._connection
        if connection is None:
            raise ValueError("no connection is open")
        parts = urlsplit(request.url)
        target = (
            request.url
            if self._proxied is not None
            else f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        )
        body = request.body() if request.body is not None else None
        headers = dict(
            request.headers, **(request.resume() if request.resume is not None else {}), **(self._proxied or {})
        )
        try:
            connection.request(request.method, target, body=body, headers=headers)
        except (BrokenPipeError, ConnectionResetError):
            # A store may refuse before it has read everything; its word is better than a broken pipe.
            if connection.sock is None:
                raise
        response = connection.getresponse()
        self._used = True
        told = {name.lower(): value for name, value in response.getheaders()}
        if response.status // 100 != 2 and not (request.redirects and response.status in _REDIRECTS):
            text = response.read(_MAX_ERROR)
            self.close()
            raise _problem(response.status, told, text)
        if take is None or response.status in _REDIRECTS:
            return Reply(told, response.read(), response.status)
        try:
            take(response)
        finally:
            if not response.isclosed():
                self.close()
        return Reply(told, status=response.status)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _problem(status: int, headers: Mapping[str, str], body: bytes) -> StoreProblem:
    """What an answer that is not a success means. Only code and message are kept: the rest may repeat the request."""
    code, message = _said(headers, body)
    kind = _KINDS.get(code) or _kind_by_status(status)
    if kind == REFUSED and "expired" in message.lower():
        kind = EXPIRED
    text = " ".join(part for part in (f"HTTP {status}", code, message) if part)
    return StoreProblem(kind, text, status, code, _wait_asked(status, headers))


def _said(headers: Mapping[str, str], body: bytes) -> tuple[str, str]:
    """(code, message) as S3 writes them in XML, else as the Hugging Face Hub does in headers and JSON."""
    found, said = _CODE.search(body), _MESSAGE.search(body)
    code = found.group(1).decode("ascii") if found else headers.get("x-error-code", "")
    message = said.group(1).decode("utf-8", "replace") if said else headers.get("x-error-message", "")
    if not message and headers.get("content-type", "").partition(";")[0].endswith("json"):
        message = _json_message(body)
    shown = _URL.sub("(an address)", message)
    return ascii(code)[1:-1][:80], ascii(shown)[1:-1][:300]


def _json_message(body: bytes) -> str:
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    texts = [record.get(name) for name in ("error", "message")] if isinstance(record, dict) else []
    return next((text for text in texts if isinstance(text, str)), "")


def _wait_asked(status: int, headers: Mapping[str, str]) -> float:
    """Seconds that a busy store asks to be left alone, by Retry-After or by the RateLimit header of an IETF draft."""
    if status not in (429, 503):
        return 0.0
    rate, after = _RATE.search(headers.get("ratelimit", "")), headers.get("retry-after", "").strip()
    return float(rate.group(1)) if rate else float(after) if _WAIT.match(after) else 0.0


def _kind_by_status(status: int) -> str:
    if status in (408, 425, 429) or status >= 500:
        return BUSY
    return MISSING if status == 404 else REFUSED


# --- many at once -------------------------------------------------------------------------------------------------


def run_all(
    jobs: Sequence[Job],
    work: Callable[[Session, Job], Result],
    patience: Patience,
    connections: int,
) -> list[Result | StoreProblem]:
    """``work`` on every job over ``connections`` connections; what each came to, in the jobs' order.

    A store that nobody reaches is not asked ten thousand times: after one unreachable answer for each connection,
    with no success between them, the other jobs are not tried.
    """
    if not jobs:
        return []
    return _Crew(jobs, work, patience, min(connections, len(jobs))).run()


class _Crew:
    def __init__(
        self,
        jobs: Sequence[Any],
        work: Callable[[Session, Any], Any],
        patience: Patience,
        size: int,
    ) -> None:
        self.jobs, self.work, self.patience, self.size = jobs, work, patience, size
        self.results: list[Any] = [None] * len(jobs)
        self.numbers = iter(range(len(jobs)))
        self.lock = threading.Lock()
        self.unreached = 0
        self.why = ""
        self.fault: BaseException | None = None

    def run(self) -> list[Any]:
        threads = [threading.Thread(target=self._serve, daemon=True) for _number in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.fault is not None:
            raise self.fault
        return self.results

    def _serve(self) -> None:
        session = Session(self.patience)
        try:
            while self.fault is None:
                with self.lock:
                    number = next(self.numbers, None)
                if number is None:
                    return
                self.results[number] = self._one(session, self.jobs[number])
        except BaseException as error:  # to be raised where the results are waited for
            self.fault = error
        finally:
            session.close()

    def _one(self, session: Session, job: Any) -> Any:
        if self.unreached >= self.size:
            return StoreProblem(UNREACHABLE, self.why)
        try:
            result = self.work(session, job)
        except StoreProblem as problem:
            if problem.kind == UNREACHABLE:
                with self.lock:
                    self.unreached += 1
                    self.why = str(problem)
            return problem
        self.unreached = 0
        return result


def cores() -> int:
    """How many cores this process may use; a container's share may be smaller than the machine."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:
        return os.cpu_count() or 1
