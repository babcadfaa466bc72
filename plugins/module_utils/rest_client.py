# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The client of a provider's REST API, whichever provider it is: requests, answers, retries, pace, a key that stays in.

A provider's client is a ``RestClient[ItsReply]`` that says only what its API does differently:

* where it is and what its key is called: ``PLATFORM``, ``URL``, ``HOSTS``, ``KEY_VARIABLE``, ``URL_VARIABLE``;
  how the key is sent: ``authorization``;
* how its errors read: a subclass of :class:`Reply` (message, code, which answers refuse, which are certain), named by
  ``REPLY``; refusals that are told in other words: ``error_of``;
* how fast it may be asked: ``INTERVALS``, by the ``kind`` that each request names.

Its endpoints call :meth:`RestClient.request`. It decides nothing about boxes.

Every request belongs to one class, which says what may be done when the answer is lost:

* ``SAFE`` reads only, so it is simply asked again;
* ``IDEMPOTENT`` leads to the same end however often it arrives, so it is sent again;
* ``ONCE`` makes something new. It is never sent again; a lost answer is :class:`AmbiguousAnswer` and the caller
  looks for the stamp.
"""

from __future__ import annotations

import email.utils
import hashlib
import http.client
import ipaddress
import json
import os
import random
import re
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Callable, ClassVar, Collection, Generic, Iterator, Mapping, TypeVar

from .failures import TenantFailure
from .pace import Pace, SharedPace, default_path
from .rental_key import api_key_of
from .rented_box import epoch

SAFE = "safe"
IDEMPOTENT = "idempotent"
ONCE = "once"

RETRY_STATUSES = (429, 500, 502, 503, 504)
# Somebody on the way waited no longer, for the request or for its answer: it may have had its effect.
GAVE_UP_STATUSES = (408, 499)
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


class RestError(TenantFailure):
    """The API refused, or could not be understood.

    :param status: the HTTP status, 0 when there was no answer.
    :param code: the API's own word (``no_such_ask``), or ours: ``unanswered``, ``unsent``, ``malformed``, ``partial``,
        ``auth_error``, ``rate_limited``.
    :param retry_after_s: seconds that the API asks to wait.
    """

    def __init__(
        self,
        what: str,
        status: int = 0,
        code: str = "",
        safe: str = "",
        fix: str = "",
        kind: str = "provider",
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(kind, what, safe=safe, fix=fix)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s


class AmbiguousAnswer(RestError):
    """A request was sent and may have had its effect: only another look can tell."""


class Reply:
    """One HTTP answer, and what it means. A provider whose errors read otherwise overrides the properties."""

    # Where the API's own words are, in the order in which they are believed.
    MESSAGE_FIELDS: ClassVar[tuple[str, ...]] = ("message", "error", "detail")
    # Whether an answer without a body is one; else it counts as text that is not JSON.
    EMPTY_IS_AN_ANSWER: ClassVar[bool] = True
    # Codes of errors that are as true a minute later, although their status is a busy server's.
    LASTING_CODES: ClassVar[Collection[str]] = ()

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.text = body.decode("utf-8", "replace")
        self.json: Any = None
        try:
            if self.text.strip() or not self.EMPTY_IS_AN_ANSWER:
                self.json = json.loads(self.text)
            self.is_json = True
        except (ValueError, RecursionError):
            self.is_json = False

    @property
    def fields(self) -> dict[str, Any]:
        return self.json if isinstance(self.json, dict) else {}

    @property
    def error_fields(self) -> Mapping[str, Any]:
        """Where ``MESSAGE_FIELDS`` are looked for."""
        return self.fields

    @property
    def message(self) -> str:
        """What the API says went wrong."""
        for name in self.MESSAGE_FIELDS:
            if isinstance(self.error_fields.get(name), str):
                return str(self.error_fields[name])
        return "" if self.is_json else self.text

    @property
    def code(self) -> str:
        """The API's word for what went wrong; empty when it has none."""
        return ""

    @property
    def is_refused(self) -> bool:
        return self.status >= 300

    @property
    def is_auth_error(self) -> bool:
        """The key is not (or no longer) good: waiting mends nothing."""
        return self.status in (401, 403)

    @property
    def is_missing(self) -> bool:
        """The API says that there is no such thing. A 404 that a proxy made up is not the API's word."""
        return self.status == 404 and isinstance(self.json, (dict, list))

    @property
    def is_certain_refusal(self) -> bool:
        """The API itself said no before it did anything: its own JSON below 500, or the rate limiter's text. An answer
        without a body may be anybody's on the way, and one that gave up waiting does not say what was done."""
        if self.status == 429:
            return True
        said_no = 400 <= self.status < 500 and self.status not in GAVE_UP_STATUSES
        return said_no and isinstance(self.json, (dict, list))

    @property
    def is_worth_repeating(self) -> bool:
        """A busy or broken server, or a success that cannot be read."""
        if self.code and self.code in self.LASTING_CODES:
            return False
        return self.status in RETRY_STATUSES or (self.status < 300 and not self.is_json)

    @property
    def left_something(self) -> bool:
        """Whether the request left something behind although it was refused."""
        return False

    @property
    def retry_after_s(self) -> float:
        text = (self.headers.get("Retry-After") or "").strip()
        return float(text) if re.match(r"[0-9]{1,6}(\.[0-9]+)?\Z", text) else 0.0


Answer = TypeVar("Answer", bound=Reply)


class RestClient(Generic[Answer]):
    """One account on one API.

    :param api_key: the account's key; kept out of URLs, errors and ``repr``.
    :param base_url: ``URL`` where empty.
    :param timeout_s: seconds that one request may take.
    :param retry_for_s: seconds for which a safe or idempotent request is tried again.
    :param sleep, clock: replaced by a virtual clock in tests.
    :param jitter: numbers from 0 to 1 that spread the waits.
    :param intervals: least seconds between two requests of one kind; by default ``INTERVALS`` at the provider itself,
        none elsewhere.
    :param pace: who hands out the moments at which requests leave; at the provider by default one for all processes.
    """

    # -- what a provider's client says ---------------------------------------------------------------------------

    PLATFORM: ClassVar[str] = ""
    URL: ClassVar[str] = ""
    # Names under which the provider itself is reached: there its pace is kept.
    HOSTS: ClassVar[tuple[str, ...]] = ()
    # The environment variables that hold the key, and another address.
    KEY_VARIABLE: ClassVar[str] = ""
    URL_VARIABLE: ClassVar[str] = ""
    INTERVALS: ClassVar[Mapping[str, float]] = {}
    REPLY: type[Answer]
    ERROR: ClassVar[type[RestError]] = RestError
    AMBIGUOUS: ClassVar[type[RestError]] = AmbiguousAnswer

    def authorization(self) -> dict[str, str]:
        """The headers that prove who asks."""
        return {"Authorization": f"Bearer {self._key}"}

    def error_of(self, method: str, path: str, repeat: str, reply: Answer) -> RestError:
        """The error that an answer is. Overridden by a provider with refusals of its own, which calls this last."""
        said = self.redact(reply.message) or "no reason given"
        what = f"{method} {path} failed with {reply.status}: {said}"
        # Before the key: that it was refused is as little certain from a stranger on the way as anything else.
        if repeat == ONCE and not reply.is_certain_refusal:
            return self.AMBIGUOUS(what, reply.status, reply.code or "unanswered")
        if reply.is_auth_error:
            return self.refused_key(reply, said)
        if reply.status < 300 and not reply.is_json:
            return self.malformed(f"{method} {path} was answered with text that is not JSON: {said}")
        code = reply.code or ("rate_limited" if reply.status == 429 else "")
        safe, fix = _what_is_safe(repeat, reply), _what_to_do(reply)
        return self.ERROR(what, reply.status, code, safe, fix, retry_after_s=reply.retry_after_s)

    def refused_key(self, reply: Answer, said: str) -> RestError:
        fix = f"check the file named by api_key_file, or the environment variable {self.KEY_VARIABLE}"
        what = f"the API refused the key ({said})"
        return self.ERROR(what, reply.status, "auth_error", safe="nothing was changed", fix=fix, kind="config")

    # -- what they share -----------------------------------------------------------------------------------------

    def __init__(
        self,
        api_key: str,
        base_url: str = "",
        timeout_s: float = 30.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        retry_for_s: float = 90.0,
        intervals: Mapping[str, float] | None = None,
        opener: Any = None,
        jitter: Callable[[], float] = random.random,
        pace: Pace | None = None,
    ) -> None:
        self._key = self._usable_key(api_key)
        self.base_url = usable_url(base_url or self.URL)
        self.timeout_s = timeout_s
        self.sleep = sleep
        self.clock = clock
        self.retry_for_s = retry_for_s
        at_provider = urllib.parse.urlsplit(self.base_url).hostname in self.HOSTS
        self._intervals = (self.INTERVALS if at_provider else {}) if intervals is None else intervals
        shared = at_provider and intervals is None
        self._pace = pace or (SharedPace(default_path(self.PLATFORM, self.account)) if shared else Pace())
        self._opener = opener or urllib.request.build_opener(NoRedirect)
        self._provider_clock: tuple[float, float] | None = None
        self._jitter = jitter

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r})"

    @classmethod
    def also_at(cls, driver: str, value: Callable[[str], Any], **settings: Any) -> list[RestClient[Any]]:
        """Clients of the same account for the other places that an audit is to look at, where a market has such."""
        return []

    @classmethod
    def from_variables(cls, driver: str, value: Callable[[str], Any], **settings: Any) -> RestClient[Any]:
        """The client of the account that a box's variables name. TenantFailure when there is no usable key."""
        options = {name: value(f"{driver}_{name}") for name in ("api_key", "api_key_file")}
        url = value(f"{driver}_api_url") or os.environ.get(cls.URL_VARIABLE) or cls.URL
        return cls(api_key_of(options, cls.KEY_VARIABLE, f"{driver}_api_key_file"), str(url), **settings)

    @property
    def key(self) -> str:
        """The key itself, for the sender and for checks that it goes nowhere else."""
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

    def note_date(self, date: str) -> None:
        """Set the provider's clock by a ``Date`` header; one that is no date of a clock's tells nothing."""
        try:
            parsed = email.utils.parsedate_tz(date)
            told = None if parsed is None else epoch(float(email.utils.mktime_tz(parsed)))
        except (ValueError, OverflowError, TypeError, IndexError):
            return
        if told is not None:
            self._provider_clock = (told, self.clock())

    def redact(self, text: str) -> str:
        """Text fit for an error or a log: no key, no control characters, at most 300 characters."""
        clean = _shown(text.replace(self._key, "***"))
        return clean if len(clean) <= 300 else clean[:297] + "..."

    def back_off(self, first_s: float = 0.5, most_s: float = 10.0) -> Iterator[float]:
        """Waits that grow by half as much again, each jittered between half and the whole of it."""
        step = first_s
        while True:
            yield step * (0.5 + self._jitter() / 2)
            step = min(step * 1.5, most_s)

    def malformed(self, what: str) -> RestError:
        return self.ERROR(
            what, 200, "malformed", safe="nothing was concluded from it", fix="run again; report it if it persists"
        )

    def request(
        self,
        method: str,
        path: str,
        repeat: str,
        kind: str = "",
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        missing_ok: bool = False,
    ) -> Answer:
        """A good answer, as ``REPLY``. RestError, or AmbiguousAnswer where nobody knows what it did.

        :param repeat: ``SAFE``, ``IDEMPOTENT`` or ``ONCE``.
        :param kind: what its pace is counted by.
        :param missing_ok: that the thing asked about is not there is an answer too, whose ``status`` is 404.
        """
        # Others may be before us in the queue of the account, which is no failure of this request.
        self._keep_pace(kind)
        deadline = self.clock() + self.retry_for_s
        waits = self.back_off()
        while True:
            wait = next(waits)
            try:
                reply = self._send(method, path, query, body)
            except (_Unsent, _Unanswered) as error:
                failure = self._no_answer(method, path, repeat, error)
                # A refused connection made nothing, but a create is still the caller's to repeat.
                if repeat == ONCE or self.clock() + wait > deadline:
                    raise failure from None
            else:
                again = repeat != ONCE and reply.is_worth_repeating
                wait = max(wait, reply.retry_after_s)
                if not again or self.clock() + wait > deadline:
                    return self._checked(method, path, repeat, reply, missing_ok)
            self.sleep(wait)
            self._keep_pace(kind)

    def _keep_pace(self, kind: str) -> None:
        interval = self._intervals.get(kind, 0.0)
        if not interval:
            return
        wait = self._pace.take(kind, interval, self.clock(), self.sleep) - self.clock()
        if wait > 0:
            self.sleep(wait)

    def _send(self, method: str, path: str, query: Mapping[str, str] | None, body: Mapping[str, Any] | None) -> Answer:
        url = self.base_url + path + ("?" + urllib.parse.urlencode(query) if query else "")
        data = None if body is None else json.dumps(body).encode("utf-8")
        headers = {**self.authorization(), "Accept": "application/json", "User-Agent": "gpu-tenant"}
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

    def _read(self, status: int, answer: Any) -> Answer:
        try:
            body = answer.read(_MAX_ANSWER_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise _Unanswered(type(error).__name__) from None
        length = answer.headers.get("Content-Length")
        if len(body) > _MAX_ANSWER_BYTES or (length and length.isdigit() and len(body) < int(length)):
            raise _Unanswered("the answer was cut short")
        self.note_date(answer.headers.get("Date") or "")
        return self.REPLY(status, answer.headers, body)

    def _no_answer(self, method: str, path: str, repeat: str, error: Exception) -> RestError:
        what = f"{method} {path} on {self.base_url} got no answer ({self.redact(str(error))})"
        fix = "check the network and the API's address, then run again"
        if repeat == SAFE:
            return self.ERROR(what, 0, "unanswered", safe="it was only a question", fix=fix)
        if isinstance(error, _Unsent):
            return self.ERROR(what, 0, "unsent", safe="the request never left this machine", fix=fix)
        return self.AMBIGUOUS(what, 0, "unanswered", safe="it may have had its effect", fix=fix)

    def _checked(self, method: str, path: str, repeat: str, reply: Answer, missing_ok: bool) -> Answer:
        """``reply`` if it is a success (or an allowed absence); else the error that it is."""
        if not reply.is_refused and reply.is_json:
            return reply
        if missing_ok and reply.is_missing:
            reply.status = 404
            return reply
        raise self.error_of(method, path, repeat, reply)

    def _usable_key(self, api_key: str) -> str:
        key = (api_key or "").strip()
        if re.match(r"[\x21-\x7e]+\Z", key):
            return key
        place = f"api_key_file ({self.PLATFORM}_api_key_file in the inventory)"
        raise TenantFailure(
            "config",
            "the API key holds blanks or characters that no key has" if key else "there is no API key",
            safe="nothing was asked",
            fix=f"name a file that holds the key and nothing else in {place}, or set {self.KEY_VARIABLE}",
        )


def _shown(text: str) -> str:
    """``text`` as one line that steers no terminal and can be encoded: what cannot be shown is a blank."""
    return re.sub(r" +", " ", "".join(sign if sign.isprintable() else " " for sign in text)).strip()


def is_id(value: Any) -> bool:
    """Whether it can be an id, and so a part of a path."""
    return isinstance(value, str) and _ID.match(value) is not None


def checked_id(value: Any, thing: str) -> str:
    """``value`` if it can be an id. TenantFailure else, which says what it is not the id of."""
    if not is_id(value):
        raise TenantFailure("config", f"{ascii(value)[:60]} is not the id of {thing}")
    return str(value)


def usable_url(url: str) -> str:
    """``url`` without its last slash, if a key may be sent there. TenantFailure else."""
    parts = urllib.parse.urlsplit(url)
    if parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and is_private(parts.hostname))):
        return url.rstrip("/")
    raise TenantFailure(
        "config",
        f"api_url {url!r} is neither https nor a marketplace on this machine or a private network",
        safe="the key was not sent",
        fix="use https, or http with a loopback or private address",
    )


def is_private(host: str) -> bool:
    """Whether an address is of this machine or of a private network; any name but ``localhost`` is not."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False


class _Unsent(Exception):
    """No connection came about, so the request never left."""


class _Unanswered(Exception):
    """The request left; no whole answer came back."""


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host, and turn a PUT into a GET."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


def _never_sent(reason: Any) -> Exception:
    """Whether a failed request can have reached the server: refused connections, DNS and TLS failures cannot."""
    text = type(reason).__name__ if isinstance(reason, BaseException) else str(reason)
    if isinstance(reason, (ConnectionRefusedError, socket.gaierror, ssl.SSLCertVerificationError)):
        return _Unsent(text)
    return _Unanswered(text)


def _what_is_safe(repeat: str, reply: Reply) -> str:
    """What a refused request left alone; empty where it may have had its effect, or left something behind."""
    if repeat == SAFE:
        return "it was only a question"
    certain = reply.is_certain_refusal and not reply.left_something
    return "the API refused it, and nothing was changed by it" if certain else ""


def _what_to_do(reply: Reply) -> str:
    if reply.status in RETRY_STATUSES:
        return "wait a minute, then run again"
    return "run again: what is there is looked up anew" if reply.is_missing else ""
