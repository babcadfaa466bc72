# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The client of RunPod's REST API, version 1 (rest.runpod.io/v1): requests, answers, retries.

Requests have vast's classes: ``SAFE``, ``IDEMPOTENT`` and ``ONCE``. RunPod's create may answer 500 although the pod was
made and bills (transformerlab-app #2305), so every answer to a create that is not a pod, or a refusal below 500, is
:class:`AmbiguousPod`: only the stamp can tell.

A list of pods is bare: it tells no total, so that a part of it looks like the whole. Who concludes that a pod is not
there asks for the pod itself.
"""

from __future__ import annotations

import email.utils
import hashlib
import http.client
import json
import random
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Callable, Iterator

from ..failures import TenantFailure
from ..vast.api import IDEMPOTENT, ONCE, SAFE, _is_private, _never_sent, _NoRedirect, _Unanswered, _Unsent

DEFAULT_URL = "https://rest.runpod.io/v1"
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_RETRY_STATUSES = (429, 500, 502, 503, 504)
# Said with a 500, and as true a minute later.
_NO_CAPACITY = re.compile(
    r"no (longer any )?instances|not enough free gpus|does not have the resources|no instances currently", re.I
)
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


class RunpodError(TenantFailure):
    """The API refused, or could not be understood.

    :param status: the HTTP status, 0 when there was no answer.
    :param code: ``unanswered``, ``unsent``, ``malformed``, ``partial``, ``no_capacity``, ``auth_error`` or empty.
    """

    def __init__(
        self, what: str, status: int = 0, code: str = "", safe: str = "", fix: str = "", kind: str = "provider"
    ) -> None:
        super().__init__(kind, what, safe=safe, fix=fix)
        self.status = status
        self.code = code


class AmbiguousPod(RunpodError):
    """A create was sent and may have made a pod: only another look can tell."""


class _Reply:
    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.text = body.decode("utf-8", "replace")
        try:
            self.json: Any = json.loads(self.text) if self.text.strip() else None
            self.is_json = True
        except ValueError:
            self.json, self.is_json = None, False

    @property
    def message(self) -> str:
        """What the API says: its own word is ``error``, its gateway's are ``detail``, ``title`` and ``message``."""
        fields = self.json[0] if isinstance(self.json, list) and self.json else self.json
        for name in ("error", "detail", "title", "message"):
            if isinstance(fields, dict) and isinstance(fields.get(name), str):
                return str(fields[name])
        return "" if self.is_json else self.text

    @property
    def lacks_capacity(self) -> bool:
        return self.status >= 400 and _NO_CAPACITY.search(self.message) is not None

    @property
    def retry_after_s(self) -> float:
        text = (self.headers.get("Retry-After") or "").strip()
        return float(text) if re.match(r"[0-9]{1,6}(\.[0-9]+)?\Z", text) else 0.0


class RunpodClient:
    """One account on one API. The words that :class:`..vast.actions.Account` speaks with a client are vast's.

    :param api_key: kept out of URLs, errors and ``repr``.
    :param timeout_s: seconds that one request may take.
    :param retry_for_s: seconds for which a safe or idempotent request is tried again.
    :param sleep, clock, jitter, opener: replaced in tests.
    """

    def __init__(
        self,
        api_key: str,
        base_url: str = DEFAULT_URL,
        timeout_s: float = 30.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        retry_for_s: float = 90.0,
        opener: Any = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._key = _usable_key(api_key)
        self.base_url = _usable_url(base_url)
        self.timeout_s = timeout_s
        self.sleep = sleep
        self.clock = clock
        self.retry_for_s = retry_for_s
        self._opener = opener or urllib.request.build_opener(_NoRedirect)
        self._jitter = jitter
        self._provider_clock: tuple[float, float] | None = None

    def __repr__(self) -> str:
        return f"RunpodClient({self.base_url!r})"

    @property
    def key(self) -> str:
        """The key itself, for checks that it goes nowhere else."""
        return self._key

    @property
    def account(self) -> str:
        """A name for this account on this API that does not tell the key."""
        return hashlib.sha256(f"{self.base_url}\0{self._key}".encode()).hexdigest()[:16]

    def provider_now(self) -> float | None:
        """The provider's time (epoch seconds) by its last ``Date`` header; None before the first answer."""
        if self._provider_clock is None:
            return None
        told, at = self._provider_clock
        return told + (self.clock() - at)

    def back_off(self, first_s: float = 0.5, most_s: float = 10.0) -> Iterator[float]:
        """Waits that grow by half as much again, each jittered between half and the whole of it."""
        step = first_s
        while True:
            yield step * (0.5 + self._jitter() / 2)
            step = min(step * 1.5, most_s)

    # -- reads ---------------------------------------------------------------------------------------------------

    def list_instances(self) -> list[dict[str, Any]]:
        """Every pod that the list shows. RunpodError for one that is malformed."""
        return self._rows("GET", "/pods")

    def get_instance(self, pod_id: str) -> dict[str, Any] | None:
        """One pod, or None when the API says that it is not there."""
        reply = self._request("GET", f"/pods/{_id(pod_id)}", SAFE, query=_WHOLE, missing_ok=True)
        if reply.status == 404:
            return None
        if not _is_pod(reply.json) or reply.json["id"] != pod_id:
            raise _malformed(f"the answer about pod {pod_id} is about something else")
        return dict(reply.json)

    def list_network_volumes(self) -> list[dict[str, Any]]:
        return self._rows("GET", "/networkvolumes")

    # -- writes --------------------------------------------------------------------------------------------------

    def create_pod(self, body: dict[str, Any]) -> str:
        """Rent a pod; sent once. Its id. RunpodError: refused for certain. AmbiguousPod: it may be there."""
        reply = self._request("POST", "/pods", ONCE, body=body)
        if not _is_pod(reply.json):
            raise AmbiguousPod("the create was answered without a pod", reply.status, "malformed")
        return str(reply.json["id"])

    def set_state(self, pod_id: str, state: str) -> None:
        """Ask for ``running`` or ``stopped``."""
        verb = "start" if state == "running" else "stop"
        self._request("POST", f"/pods/{_id(pod_id)}/{verb}", IDEMPOTENT)

    def destroy_instance(self, pod_id: str) -> bool:
        """Terminate; False when it was gone already."""
        return self._request("DELETE", f"/pods/{_id(pod_id)}", IDEMPOTENT, missing_ok=True).status < 400

    # -- plumbing ------------------------------------------------------------------------------------------------

    def _rows(self, method: str, path: str) -> list[dict[str, Any]]:
        rows = self._request(method, path, SAFE, query=_WHOLE).json
        if not isinstance(rows, list) or not all(_has_id(row) for row in rows):
            raise _malformed(f"the answer to {method} {path} is no list of what has ids")
        return rows

    def _request(
        self,
        method: str,
        path: str,
        repeat: str,
        query: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
        missing_ok: bool = False,
    ) -> _Reply:
        deadline = self.clock() + self.retry_for_s
        for wait in self.back_off():
            try:
                reply = self._send(method, path, query, body)
            except (_Unsent, _Unanswered) as error:
                if repeat == ONCE or self.clock() + wait > deadline:
                    raise self._no_answer(method, path, repeat, error) from None
                self.sleep(wait)
                continue
            wait = max(wait, reply.retry_after_s)
            if repeat == ONCE or not _worth_repeating(reply) or self.clock() + wait > deadline:
                return self._checked(method, path, repeat, reply, missing_ok)
            self.sleep(wait)
        raise AssertionError("waits do not end")

    def _send(self, method: str, path: str, query: dict[str, str] | None, body: dict[str, Any] | None) -> _Reply:
        url = self.base_url + path + ("?" + urllib.parse.urlencode(query) if query else "")
        data = None if body is None else json.dumps(body).encode("utf-8")
        headers = {"Authorization": f"Bearer {self._key}", "Accept": "application/json", "User-Agent": "gpu-tenant"}
        if data is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(url, data=data, headers=headers, method=method)  # noqa: S310 - scheme checked
        try:
            with self._opener.open(request, timeout=self.timeout_s) as answer:
                return self._read(answer.status, answer)
        except urllib.error.HTTPError as error:
            with error:
                return self._read(error.code, error)
        except urllib.error.URLError as error:
            raise _never_sent(error.reason) from None
        except (OSError, http.client.HTTPException) as error:
            raise _Unanswered(type(error).__name__) from None

    def _read(self, status: int, answer: Any) -> _Reply:
        try:
            body = answer.read(_MAX_ANSWER_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise _Unanswered(type(error).__name__) from None
        length = answer.headers.get("Content-Length")
        if len(body) > _MAX_ANSWER_BYTES or (length and length.isdigit() and len(body) < int(length)):
            raise _Unanswered("the answer was cut short")
        date = email.utils.parsedate_tz(answer.headers.get("Date") or "")
        if date is not None:
            self._provider_clock = (float(email.utils.mktime_tz(date)), self.clock())
        return _Reply(status, answer.headers, body)

    def _no_answer(self, method: str, path: str, repeat: str, error: Exception) -> RunpodError:
        what = f"{method} {path} on {self.base_url} got no answer ({self._redacted(str(error))})"
        fix = "check the network and the API's address, then run again"
        if repeat == SAFE:
            return RunpodError(what, 0, "unanswered", safe="it was only a question", fix=fix)
        if isinstance(error, _Unsent):
            return RunpodError(what, 0, "unsent", safe="the request never left this machine", fix=fix)
        kind = AmbiguousPod if repeat == ONCE else RunpodError
        return kind(what, 0, "unanswered", safe="it may have had its effect", fix=fix)

    def _checked(self, method: str, path: str, repeat: str, reply: _Reply, missing_ok: bool) -> _Reply:
        """``reply`` if it is a success (or an allowed absence); else the error that it is."""
        if reply.status < 300 and reply.is_json:
            return reply
        # A proxy's 404 is not the API's word that a pod is not there.
        if missing_ok and reply.status == 404 and isinstance(reply.json, (dict, list)):
            return reply
        said = self._redacted(reply.message) or "no reason given"
        if reply.status in (401, 403):
            fix = "check the file named by api_key_file, or the environment variable RUNPOD_API_KEY"
            what = f"the API refused the key ({said})"
            raise RunpodError(what, reply.status, "auth_error", safe="nothing was changed", fix=fix, kind="config")
        what = f"{method} {path} failed with {reply.status}: {said}"
        code = "no_capacity" if reply.lacks_capacity else ""
        certain = 400 <= reply.status < 500 and (reply.is_json or reply.status == 429)
        if repeat == ONCE and not certain:
            raise AmbiguousPod(what, reply.status, code or "unanswered")
        if reply.status < 300:
            raise _malformed(f"{method} {path} was answered with text that is not JSON: {said}")
        safe = "it was only a question" if repeat == SAFE else ""
        fix = "wait a minute, then run again" if reply.status in _RETRY_STATUSES else ""
        raise RunpodError(what, reply.status, code, safe, fix)

    def _redacted(self, text: str) -> str:
        """Text fit for an error: no key, no control characters, at most 300 characters."""
        clean = re.sub(r"[\x00-\x1f\x7f]+", " ", text.replace(self._key, "***")).strip()
        return clean if len(clean) <= 300 else clean[:297] + "..."


_WHOLE = {"includeMachine": "true", "includeNetworkVolume": "true"}


def _worth_repeating(reply: _Reply) -> bool:
    """A busy or broken server, or a success that cannot be read; a host without a GPU has none a second later."""
    if reply.lacks_capacity:
        return False
    return reply.status in _RETRY_STATUSES or (reply.status < 300 and not reply.is_json)


def _has_id(row: Any) -> bool:
    return isinstance(row, dict) and isinstance(row.get("id"), str) and bool(_ID.match(row["id"]))


def _is_pod(row: Any) -> bool:
    return _has_id(row) and isinstance(row.get("desiredStatus"), str)


def _id(value: str) -> str:
    if not isinstance(value, str) or not _ID.match(value):
        raise TenantFailure("config", f"{ascii(value)[:60]} is not the id of a pod")
    return value


def _malformed(what: str) -> RunpodError:
    return RunpodError(
        what, 200, "malformed", safe="nothing was concluded from it", fix="run again; report it if it persists"
    )


def _usable_key(api_key: str) -> str:
    key = (api_key or "").strip()
    if re.match(r"[\x21-\x7e]+\Z", key):
        return key
    raise TenantFailure(
        "config",
        "the API key holds blanks or characters that no key has" if key else "there is no API key",
        safe="nothing was asked",
        fix="name a file that holds the key and nothing else in api_key_file, or set RUNPOD_API_KEY",
    )


def _usable_url(url: str) -> str:
    parts = urllib.parse.urlsplit(url or DEFAULT_URL)
    if parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and _is_private(parts.hostname))):
        return (url or DEFAULT_URL).rstrip("/")
    raise TenantFailure(
        "config",
        f"api_url {url!r} is neither https nor a marketplace on this machine or a private network",
        safe="the key was not sent",
        fix="use https, or http with a loopback or private address",
    )
