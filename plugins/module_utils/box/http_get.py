# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One HTTP exchange: redirects followed by hand, so that a token never follows to another host, and statuses judged.

A presigned URL is a secret of its bearer, so no query ever stands in an error.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import ssl
import time
from dataclasses import dataclass
from typing import Iterator, Mapping
from urllib.parse import urljoin, urlsplit

from . import http_wire, urls

AGENT = "gpu-tenant"
MOST_REDIRECTS = 10
_MAX_BODY = 64 * 1024 * 1024
_LONGEST_WAIT_S = 600.0

# ``again``: the very same request may end better.
UNREACHABLE, BUSY, CUT = "unreachable", "busy", "cut"
AGAIN = (UNREACHABLE, BUSY, CUT)
DENIED, MISSING, REFUSED, WRONG, FULL, DEADLINE = "denied", "missing", "refused", "wrong", "full", "deadline"
# The proxy refuses the host, so that the host itself was never asked.
BLOCKED = "blocked"
_REDIRECTS = (301, 302, 303, 307, 308)
_SCHEMES = ("http", "https")


class HttpProblem(Exception):
    """Why an exchange did not bring what it was for. ``wait_s`` is what the server asked for, 0 when it did not, and
    ``challenge`` how it wants to be asked, where it said that when it denied."""

    def __init__(self, kind: str, text: str, wait_s: float = 0.0, challenge: str = "") -> None:
        super().__init__(text)
        self.kind = kind
        self.wait_s = wait_s
        self.challenge = challenge

    @property
    def again(self) -> bool:
        return self.kind in AGAIN


@dataclass(frozen=True)
class Answer:
    """A good answer, 200, 206 or 416. ``headers`` have lower-case names; the body is still to be read."""

    status: int
    headers: Mapping[str, str]
    stream: http.client.HTTPResponse


@dataclass(frozen=True)
class Call:
    """``secret_headers`` are sent to the origin of ``url`` only, never to one that it redirects to. ``route`` is one of
    :mod:`http_wire`'s."""

    url: str
    headers: Mapping[str, str]
    secret_headers: Mapping[str, str]
    timeout_s: float = 60.0
    method: str = "GET"
    body: bytes | None = None
    route: str = http_wire.BY_ENVIRONMENT


@contextlib.contextmanager
def opened(call: Call) -> Iterator[Answer]:
    """Send ``call`` and follow redirects.

    :raises HttpProblem: the server cannot be reached, or its answer is none that a fetch can use.
    """
    url = call.url
    for _hop in range(MOST_REDIRECTS + 1):
        link, response = _send(call, url)
        try:
            if response.status not in _REDIRECTS:
                yield _judged(response, url)
                return
            url = _next(url, response.getheader("Location"))
        finally:
            link.close()
    raise HttpProblem(REFUSED, f"{urls.shown(call.url)} redirects more than {MOST_REDIRECTS} times")


def read(call: Call) -> tuple[Mapping[str, str], bytes]:
    """Headers and whole body of a small answer."""
    with opened(call) as answer:
        try:
            body = answer.stream.read(_MAX_BODY + 1)
        except (OSError, http.client.HTTPException) as error:
            raise unreachable(call.url, error) from error
        if len(body) > _MAX_BODY:
            raise HttpProblem(REFUSED, f"{urls.shown(call.url)} answers with more than {_MAX_BODY} bytes")
        return answer.headers, body


def _send(call: Call, url: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    parts = urlsplit(url)
    headers = {"User-Agent": AGENT, "Accept-Encoding": "identity", "Connection": "close", **call.headers}
    if urls.origin(url) == urls.origin(call.url):
        headers.update(call.secret_headers)
    try:
        link, proxied = http_wire.connection(parts.scheme, parts.netloc, call.timeout_s, call.route)
        target = url if proxied is not None else f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        headers.update(proxied or {})
        try:
            link.request(call.method, target, body=call.body, headers=headers)
            return link, link.getresponse()
        except BaseException:
            link.close()
            raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise unreachable(url, error) from error


def unreachable(url: str, error: Exception) -> HttpProblem:
    """An error of the wire as a problem; a certificate that is not accepted will not be accepted the next time."""
    if http_wire.is_refused_by_proxy(error):
        return HttpProblem(BLOCKED, f"{urls.shown(url)}: {http_wire.why_unreachable(error)}")
    kind = REFUSED if isinstance(error, (ssl.SSLCertVerificationError, http.client.InvalidURL)) else UNREACHABLE
    return HttpProblem(kind, f"{urls.shown(url)}: {http_wire.why_unreachable(error)}")


def _next(url: str, location: str | None) -> str:
    if not location:
        raise HttpProblem(REFUSED, f"{urls.shown(url)} redirects nowhere")
    target = urljoin(url, location)
    scheme = urlsplit(target).scheme
    if scheme not in _SCHEMES or (scheme == "http" and urlsplit(url).scheme == "https"):
        raise HttpProblem(REFUSED, f"{urls.shown(url)} redirects to {scheme or 'nowhere'}, which is not followed")
    return target


def _judged(response: http.client.HTTPResponse, url: str) -> Answer:
    status = response.status
    headers = {name.lower(): value for name, value in response.getheaders()}
    if status in (200, 206, 416):
        return Answer(status, headers, response)
    text = f"{urls.shown(url)} answers HTTP {status} {response.reason}".rstrip()
    if status in (401, 403, 407):
        raise HttpProblem(DENIED, text, challenge=headers.get("www-authenticate", ""))
    if status in (404, 410):
        raise HttpProblem(MISSING, text)
    if status in (408, 425, 429) or status >= 500:
        raise HttpProblem(BUSY, text, _retry_after(headers.get("retry-after", "")))
    raise HttpProblem(REFUSED, text)


def _retry_after(value: str) -> float:
    """Seconds that the header asks for, 0 when it says nothing usable."""
    if value.isdigit():
        return min(float(value), _LONGEST_WAIT_S)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return 0.0
    return min(max(0.0, moment.timestamp() - time.time()), _LONGEST_WAIT_S)
