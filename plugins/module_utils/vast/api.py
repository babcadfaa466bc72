# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The client of vast.ai's REST API: requests, answers, retries. It decides nothing about boxes.

Every request belongs to one class, which says what may be done when the answer is lost:

* ``SAFE`` reads only, so it is simply asked again;
* ``IDEMPOTENT`` leads to the same end however often it arrives, so it is sent again;
* ``ONCE`` makes something new. It is never sent again; a lost answer is :class:`AmbiguousAnswer` and the caller
  looks for the stamp.

Failures come in three dresses: a status, a 200 with ``success: false``, and text that is not JSON. An unknown key is
a 404 just as a missing instance is; ``error`` tells them apart.
"""

from __future__ import annotations

import email.utils
import hashlib
import http.client
import ipaddress
import json
import random
import re
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Callable, Iterator, TypeVar

from ..failures import TenantFailure
from .pace import Pace, SharedPace, default_path

Result = TypeVar("Result")

DEFAULT_URL = "https://console.vast.ai"

SAFE = "safe"
IDEMPOTENT = "idempotent"
ONCE = "once"

PAGE_SIZE = 25
_MAX_PAGES = 400
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_RETRY_STATUSES = (429, 500, 502, 503, 504)
_LOGIN = re.compile(r"invalid user key|log in|login", re.I)
# An account with two-factor login has keys that last as long as a login.
_SECOND_FACTOR = re.compile(r"session expired|2fa|tfa\b|two.factor|second factor", re.I)
# An account without credit. Its boxes are stopped, and deleted later.
_NO_CREDIT = re.compile(r"\b(no|insufficient|not enough|out of) (credit|balance|funds)", re.I)
_MISSING_CODES = (
    "not_found", "invalid_id", "invalid_container", "invalid_container_id", "no_ssh_key", "no_pending_price_increase",
)  # fmt: skip

# Seconds between two requests of one kind that the market asks for (its API reference, 2026-08).
MARKET_INTERVALS = {
    "list": 1.0,
    "show": 2.0,
    "manage": 1.0,
    "create": 4.5,
    "restart": 1.0,
    "destroy": 3.0,
    "bid": 5.5,
    "ssh": 1.0,
    "charges": 1.0,
    "search": 6.0,
    "copy": 3.5,
    "connections": 2.9,
    "logs": 1.5,  # not published; as for the commands that are run on an instance
    "prepay": 2.0,
    "deposit": 3.0,
    "rises": 1.0,  # not published; as for what manages an instance
    "templates": 1.0,  # not published; as for a list
    "volumes": 5.5,
}


class VastError(TenantFailure):
    """The API refused, or could not be understood.

    :param status: the HTTP status, 0 when there was no answer.
    :param code: the API's own word (``no_such_ask``), or ours: ``unanswered``, ``malformed``, ``partial``.
    :param contract: the id of an instance that the failed create left behind, 0 when none.
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
        contract: int = 0,
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(kind, what, safe=safe, fix=fix)
        self.status = status
        self.code = code
        self.contract = contract
        self.retry_after_s = retry_after_s


class AmbiguousAnswer(VastError):
    """A request was sent and may have had its effect: only another look can tell."""


class _Reply:
    """One HTTP answer, its JSON read or not."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.text = body.decode("utf-8", "replace")
        try:
            self.json: Any = json.loads(self.text)
            self.is_json = True
        except ValueError:
            self.json = None
            self.is_json = False

    @property
    def fields(self) -> dict[str, Any]:
        return self.json if isinstance(self.json, dict) else {}

    @property
    def code(self) -> str:
        """The API's word for what went wrong. Some endpoints say ``invalid_args`` and hide the word in the message."""
        hidden = re.search(r"\b(no_such_[a-z_]+)\b", self.message)
        if hidden:
            return hidden.group(1)
        code = self.fields.get("error")
        return code if isinstance(code, str) else ""

    @property
    def message(self) -> str:
        for name in ("msg", "message", "detail"):
            if isinstance(self.fields.get(name), str):
                return str(self.fields[name])
        return "" if self.is_json else self.text

    @property
    def is_auth_error(self) -> bool:
        if self.code == "auth_error" or self.status == 401:
            return True
        told = _LOGIN.search(self.message) or _SECOND_FACTOR.search(self.message)
        return self.status in (403, 404) and told is not None

    @property
    def is_unpaid(self) -> bool:
        if not 400 <= self.status < 500 and self.fields.get("success") is not False:
            return False
        return self.code == "missing_billing" or _NO_CREDIT.search(self.message) is not None

    @property
    def is_missing(self) -> bool:
        """The API says that there is no such thing. A 404 that a proxy made up is not the API's word."""
        known = self.code in _MISSING_CODES or self.code.startswith("no_such_")
        return known and not self.is_auth_error

    @property
    def retry_after_s(self) -> float | None:
        text = (self.headers.get("Retry-After") or "").strip()
        return float(text) if re.match(r"[0-9]{1,6}(\.[0-9]+)?\Z", text) else None

    @property
    def contract(self) -> int:
        value = self.fields.get("new_contract")
        return value if isinstance(value, int) and not isinstance(value, bool) else 0


class _Unsent(Exception):
    """No connection came about, so the request never left."""


class _Unanswered(Exception):
    """The request left; no whole answer came back."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host, and turn a PUT into a GET."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


class VastClient:
    """One account on one API.

    :param api_key: the account's key; kept out of URLs, errors and ``repr``.
    :param timeout_s: seconds that one request may take.
    :param retry_for_s: seconds for which a safe or idempotent request is tried again.
    :param sleep, clock: replaced by a virtual clock in tests.
    :param jitter: numbers from 0 to 1 that spread the waits.
    :param intervals: least seconds between two requests of one kind; by default the market's own on the market,
        none elsewhere.
    :param pace: who hands out the moments at which requests leave; on the market by default one for all processes.
    """

    def __init__(
        self,
        api_key: str,
        base_url: str = DEFAULT_URL,
        timeout_s: float = 30.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        retry_for_s: float = 90.0,
        intervals: dict[str, float] | None = None,
        opener: Any = None,
        jitter: Callable[[], float] = random.random,
        pace: Pace | None = None,
    ) -> None:
        self._key = _usable_key(api_key)
        self.base_url = _usable_url(base_url)
        self.timeout_s = timeout_s
        self.sleep = sleep
        self.clock = clock
        self.retry_for_s = retry_for_s
        on_market = urllib.parse.urlsplit(self.base_url).hostname in ("console.vast.ai", "cloud.vast.ai")
        self._intervals = (MARKET_INTERVALS if on_market else {}) if intervals is None else intervals
        self._pace = pace or (SharedPace(default_path(self.account)) if on_market and intervals is None else Pace())
        self._opener = opener or urllib.request.build_opener(_NoRedirect)
        self._provider_clock: tuple[float, float] | None = None
        self._jitter = jitter

    def __repr__(self) -> str:
        return f"VastClient({self.base_url!r})"

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

    def redact(self, text: str) -> str:
        """Text fit for an error or a log: no key, no control characters, at most 300 characters."""
        clean = re.sub(r"[\x00-\x1f\x7f]+", " ", text.replace(self._key, "***")).strip()
        return clean if len(clean) <= 300 else clean[:297] + "..."

    # -- reads ---------------------------------------------------------------------------------------------------

    def list_instances(self) -> list[dict[str, Any]]:
        """Every instance of the account, all pages. VastError if any page fails or rows are missing."""
        deadline = self.clock() + self.retry_for_s
        waits = self.back_off()
        while True:
            try:
                return self._whole_list()
            except VastError as error:
                wait = next(waits)
                if error.code not in ("partial", "malformed") or self.clock() + wait > deadline:
                    raise
            self.sleep(wait)

    def get_instance(self, instance_id: str) -> dict[str, Any] | None:
        """One instance, or None when the API says that it is not there."""
        path = f"/api/v0/instances/{_number(instance_id)}/"
        reply = self._request("GET", path, SAFE, "show", query={"owner": "me"}, missing_ok=True)
        if reply.status == 404:
            return None
        if "instances" not in reply.fields:
            raise self._malformed(f"the answer about instance {instance_id} has no 'instances'")
        row = reply.fields["instances"]
        if row is None:
            return None
        if not _is_row(row) or str(row["id"]) != str(instance_id):
            raise self._malformed(f"the answer about instance {instance_id} is about something else")
        return dict(row)

    def search_offers(self, filters: dict[str, Any]) -> list[dict[str, Any]]:
        """Offers that match; an empty list means that the market has none."""
        reply = self._request("POST", "/api/v0/bundles/", SAFE, "search", body=filters)
        return self._rows(reply, "offers")

    def list_ssh_keys(self) -> list[dict[str, Any]]:
        reply = self._request("GET", "/api/v0/ssh/", SAFE, "ssh")
        if isinstance(reply.json, list):
            return self._rows(reply, "")
        return self._rows(reply, "ssh_keys")

    def user(self) -> dict[str, Any]:
        """The account: ``id``, ``credit``, ``balance``, …; never its key."""
        reply = self._request("GET", "/api/v0/users/current", SAFE, "user")
        if "id" not in reply.fields:
            raise self._malformed("the answer about the account has no 'id'")
        return {name: value for name, value in reply.fields.items() if name not in ("api_key", "ssh_key")}

    def charges(self, since: float, until: float) -> list[dict[str, Any]]:
        """What was billed between two moments (epoch seconds): rows with ``source``, ``amount`` and ``items``."""
        filters = json.dumps({"day": {"gte": int(since), "lte": int(until)}})
        query = {"select_filters": filters, "format": "tree", "limit": "100"}
        rows: list[dict[str, Any]] = []
        for reply in self._pages("/api/v0/charges/", query, "charges"):
            page = reply.fields.get("results")
            if not isinstance(page, list) or not all(isinstance(row, dict) for row in page):
                raise self._malformed("a page of charges has no list of 'results'")
            rows += page
        return rows

    def connections(self) -> list[dict[str, Any]]:
        """The account's cloud connections: rows with ``id``, ``name`` and ``cloud_type``."""
        return self._rows(self._request("GET", "/api/v0/users/cloud_integrations/", SAFE, "connections"), "")

    def request_logs(self, instance_id: str, tail: int, wanted: str, daemon: bool) -> str:
        """Have an instance's log collected; where it will lie. VastError when the provider has none.

        :param tail: only this many lines from the end, 0 for all.
        :param wanted: only lines that hold this text.
        :param daemon: the host's own log of the instance, in place of the container's.
        """
        body: dict[str, Any] = {"tail": str(tail)} if tail else {}
        body.update({"filter": wanted} if wanted else {}, **({"daemon_logs": "true"} if daemon else {}))
        path = f"/api/v0/instances/request_logs/{_number(instance_id)}/"
        reply = self._request("PUT", path, SAFE, "logs", body=body)
        url = reply.fields.get("result_url")
        if not isinstance(url, str) or not url:
            raise VastError(f"the provider has no log to show: {self.redact(reply.message) or 'no reason given'}", 200)
        return _usable_result(url, self.base_url)

    def read_result(self, url: str, read: Callable[[Any], Result]) -> Result | None:
        """What lies at a result's address, asked for without the key; None while it is not there.

        :param read: takes the open answer.
        """
        request = urllib.request.Request(_usable_result(url, self.base_url), headers={"User-Agent": "gpu-tenant"})  # noqa: S310 - checked
        try:
            with self._opener.open(request, timeout=self.timeout_s) as answer:
                return read(answer) if answer.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None

    def list_volumes(self) -> list[dict[str, Any]]:
        """Every volume of the account, of whatever kind; the API gives them on one page."""
        query = {"owner": "me", "type": "all_volume"}
        return self._rows(self._request("GET", "/api/v0/volumes", SAFE, "volumes", query=query), "volumes")

    def find_templates(self, filters: dict[str, Any]) -> list[dict[str, Any]]:
        """Templates that the account sees and that match; an empty list means that there is none."""
        query = {"select_cols": json.dumps(["*"]), "select_filters": json.dumps(filters)}
        return self._rows(self._request("GET", "/api/v0/template/", SAFE, "templates", query=query), "templates")

    def search_volume_offers(self, filters: dict[str, Any]) -> list[dict[str, Any]]:
        """Offers of volumes that match; an empty list means that the market has none."""
        reply = self._request("POST", "/api/v0/volumes/search/", SAFE, "volumes", body=filters)
        return self._rows(reply, "offers")

    def pending_price_rises(self) -> tuple[list[dict[str, Any]], bool]:
        """Raised prices that wait for an answer, of all instances, and whether the API says that these are all."""
        reply = self._request("GET", "/api/v0/instances/pending-price-increases/", SAFE, "rises")
        rows = reply.fields.get("pending_price_increases")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self._malformed("the answer has no list of 'pending_price_increases'")
        return rows, not reply.fields.get("truncated")

    def deposit(self, instance_id: str) -> dict[str, Any]:
        """What is left of what was paid ahead for an instance: dollars that come back, and months."""
        path = f"/api/v0/instances/balance/{_number(instance_id)}/"
        return dict(self._request("GET", path, SAFE, "deposit", query={"owner": "me"}).fields)

    # -- writes --------------------------------------------------------------------------------------------------

    def create_instance(self, offer_id: int, body: dict[str, Any]) -> str:
        """Rent an offer; sent once. The new instance's id.

        VastError: refused for certain (``contract`` names a stopped instance that was left behind all the same).
        AmbiguousAnswer: it may have been rented.
        """
        reply = self._request("PUT", f"/api/v0/asks/{_number(offer_id)}/", ONCE, "create", body=body)
        if not reply.contract:
            raise AmbiguousAnswer("the create was answered without a 'new_contract'", reply.status, "malformed")
        return str(reply.contract)

    def set_state(self, instance_id: str, state: str) -> None:
        """Ask for ``running`` or ``stopped``."""
        self._manage(instance_id, {"state": state})

    def restart_instance(self, instance_id: str, verb: str) -> None:
        """``reboot`` or ``recycle``; sent once, because a second arrival would restart the box again."""
        self._request("PUT", f"/api/v0/instances/{verb}/{_number(instance_id)}/", ONCE, "restart", body={})

    def change_bid(self, instance_id: str, price: float) -> None:
        """Bid ``price`` dollars an hour for the whole machine."""
        path = f"/api/v0/instances/bid_price/{_number(instance_id)}/"
        self._request("PUT", path, IDEMPOTENT, "bid", body={"client_id": "me", "price": price})

    def prepay(self, instance_id: str, amount: float) -> dict[str, Any]:
        """Pay ahead for an instance on demand; sent once, because a second arrival would pay again."""
        path = f"/api/v0/instances/prepay/{_number(instance_id)}/"
        return dict(self._request("PUT", path, ONCE, "prepay", body={"amount": amount}).fields)

    def answer_price_rise(self, rise_id: int, accept: bool) -> bool:
        """Accept or reject a raised price; False when it does not wait for an answer any more."""
        path = f"/api/v0/instances/{'accept' if accept else 'reject'}-price-increase/"
        body = {"pending_price_increase_id": int(_number(rise_id))}
        return self._request("PUT", path, IDEMPOTENT, "rises", body=body, missing_ok=True).status < 400

    def destroy_instance(self, instance_id: str) -> bool:
        """Destroy; False when it was gone already."""
        path = f"/api/v0/instances/{_number(instance_id)}/"
        reply = self._request("DELETE", path, IDEMPOTENT, "destroy", body={}, missing_ok=True)
        return reply.status < 400

    def create_ssh_key(self, public_key: str) -> dict[str, Any]:
        """Register a key; sent once, because a second arrival may make a second entry."""
        reply = self._request("POST", "/api/v0/ssh/", ONCE, "ssh", body={"ssh_key": public_key})
        key = reply.fields.get("key")
        return dict(key) if isinstance(key, dict) else {}

    def delete_ssh_key(self, key_id: int) -> bool:
        path = f"/api/v0/ssh/{_number(key_id)}/"
        reply = self._request("DELETE", path, IDEMPOTENT, "ssh", body={}, missing_ok=True)
        return reply.status < 400

    def create_volume(self, offer_id: int, size_gb: int, name: str) -> str:
        """Rent a volume; sent once. Its id. VastError: refused for certain. AmbiguousAnswer: it may be there."""
        body = {"id": int(_number(offer_id)), "size": size_gb, "name": name}
        reply = self._request("PUT", "/api/v0/volumes/", ONCE, "volumes", body=body)
        named = re.match(r"V\.([0-9]{1,18})\Z", str(reply.fields.get("volume_name")))
        if named is None:
            raise AmbiguousAnswer("the create was answered without a 'volume_name'", reply.status, "malformed")
        return named.group(1)

    def delete_volume(self, volume_id: str) -> bool:
        """Delete; False when it was gone already. The API wants the id in the query, its reference in the body."""
        number = _number(volume_id)
        reply = self._request(
            "DELETE", "/api/v0/volumes/", IDEMPOTENT, "volumes", query={"id": number}, body={"id": int(number)},
            missing_ok=True,
        )  # fmt: skip
        return reply.status < 400

    def copy(self, source_id: str, source_path: str, dest_id: str, dest_path: str) -> None:
        """Have the provider copy between two instances, which may be stopped; it answers before it begins.

        Sent again after a lost answer: a second copy of the same finds nothing left to send.
        """
        ids = {"src_id": f"C.{_number(source_id)}", "dst_id": f"C.{_number(dest_id)}"}
        body = dict(ids, client_id="me", src_path=source_path, dst_path=dest_path)
        self._request("PUT", "/api/v0/commands/copy_direct/", IDEMPOTENT, "copy", body=body)

    def cloud_copy(self, instance_id: str, connection_id: int, transfer: str, source: str, dest: str) -> None:
        """Have the provider copy between an instance and a cloud connection. ``transfer`` is the API's word."""
        ids = {"instance_id": _number(instance_id), "selected": _number(connection_id)}
        body = dict(ids, src=source, dst=dest, transfer=transfer, flags=[])
        self._request("POST", "/api/v0/commands/rclone/", IDEMPOTENT, "copy", body=body)

    def cancel_copies(self, instance_id: str, cloud: bool) -> None:
        """End every copy into the instance, or with ``cloud`` every one between it and a cloud."""
        path = f"/api/v0/commands/{'rclone' if cloud else 'copy_direct'}/"
        self._request("DELETE", path, IDEMPOTENT, "copy", body={"client_id": "me", "dst_id": _number(instance_id)})

    def back_off(self, first_s: float = 0.5, most_s: float = 10.0) -> Iterator[float]:
        """Waits that grow by half as much again, each jittered between half and the whole of it."""
        step = first_s
        while True:
            yield step * (0.5 + self._jitter() / 2)
            step = min(step * 1.5, most_s)

    # -- plumbing ------------------------------------------------------------------------------------------------

    def _manage(self, instance_id: str, body: dict[str, Any]) -> None:
        self._request("PUT", f"/api/v0/instances/{_number(instance_id)}/", IDEMPOTENT, "manage", body=body)

    def _whole_list(self) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        total: Any = None
        for reply in self._pages("/api/v1/instances/", {"limit": str(PAGE_SIZE)}, "list"):
            for row in self._rows(reply, "instances"):
                found[str(row["id"])] = row
            total = reply.fields.get("total_instances")
        if isinstance(total, bool) or not isinstance(total, int):
            raise self._malformed("the list of instances does not say how many there are")
        if len(found) < total:
            raise VastError(
                f"the list of instances is partial: {len(found)} of {total} came",
                200,
                "partial",
                safe="nothing was concluded from it",
                fix="run again in a minute",
            )
        return list(found.values())

    def _pages(self, path: str, query: dict[str, str], pace: str) -> Iterator[_Reply]:
        """Each page's answer. A token that comes again would loop for ever, so it is an error."""
        token: Any = None
        seen: set[str] = set()
        for _page in range(_MAX_PAGES):
            page_query = dict(query, after_token=token) if token else query
            reply = self._request("GET", path, SAFE, pace, query=page_query)
            yield reply
            token = reply.fields.get("next_token")
            if token is None or token == "":
                return
            if not isinstance(token, str) or token in seen:
                raise self._malformed(f"the pages of {path} do not end")
            seen.add(token)
        raise self._malformed(f"the pages of {path} do not end")

    def _rows(self, reply: _Reply, name: str) -> list[dict[str, Any]]:
        rows = reply.fields.get(name) if name else reply.json
        if not isinstance(rows, list) or not all(_is_row(row) for row in rows):
            raise self._malformed(f"the answer has no list of {name or 'rows'}")
        return rows

    def _malformed(self, what: str) -> VastError:
        return VastError(
            what, 200, "malformed", safe="nothing was concluded from it", fix="run again; report it if it persists"
        )

    def _request(
        self,
        method: str,
        path: str,
        repeat: str,
        pace: str,
        query: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
        missing_ok: bool = False,
    ) -> _Reply:
        # Others may be before us in the queue of the account, which is no failure of this request.
        self._keep_pace(pace)
        deadline = self.clock() + self.retry_for_s
        waits = self.back_off()
        while True:
            wait = next(waits)
            try:
                reply = self._send(method, path, query, body)
            except (_Unsent, _Unanswered) as error:
                failure = self._no_answer(method, path, repeat, error)
                # A refused connection rented nothing, but a create is still the caller's to repeat.
                if repeat == ONCE or self.clock() + wait > deadline:
                    raise failure from None
            else:
                again = repeat != ONCE and _worth_repeating(reply)
                wait = max(wait, reply.retry_after_s or 0.0)
                if not again or self.clock() + wait > deadline:
                    return self._checked(method, path, repeat, reply, missing_ok)
            self.sleep(wait)
            self._keep_pace(pace)

    def _keep_pace(self, pace: str) -> None:
        interval = self._intervals.get(pace, 0.0)
        if not interval:
            return
        wait = self._pace.take(pace, interval, self.clock(), self.sleep) - self.clock()
        if wait > 0:
            self.sleep(wait)

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

    def _no_answer(self, method: str, path: str, repeat: str, error: Exception) -> VastError:
        what = f"{method} {path} on {self.base_url} got no answer ({self.redact(str(error))})"
        fix = "check the network and the API's address, then run again"
        if repeat == SAFE:
            return VastError(what, 0, "unanswered", safe="it was only a question", fix=fix)
        if isinstance(error, _Unsent):
            return VastError(what, 0, "unsent", safe="the request never left this machine", fix=fix)
        return AmbiguousAnswer(what, 0, "unanswered", safe="it may have had its effect", fix=fix)

    def _checked(self, method: str, path: str, repeat: str, reply: _Reply, missing_ok: bool) -> _Reply:
        """``reply`` if it is a success (or an allowed absence); else the error that it is."""
        refused = reply.status >= 300 or reply.fields.get("success") is False
        if not refused and reply.is_json:
            return reply
        if missing_ok and reply.is_missing:
            reply.status = 404
            return reply
        raise self._error(method, path, repeat, reply)

    def _error(self, method: str, path: str, repeat: str, reply: _Reply) -> VastError:
        said = self.redact(reply.message) or "no reason given"
        if reply.is_auth_error:
            return _refused_key(reply, said)
        if reply.is_unpaid:
            return _unpaid(reply, said)
        what = f"{method} {path} failed with {reply.status}: {said}"
        if repeat == ONCE and not _is_certain_refusal(reply):
            return AmbiguousAnswer(what, reply.status, reply.code or "unanswered", contract=reply.contract)
        if reply.status < 300 and not reply.is_json:
            return self._malformed(f"{method} {path} was answered with text that is not JSON: {said}")
        code = reply.code or ("rate_limited" if reply.status == 429 else "")
        waits = reply.retry_after_s or 0.0
        safe, fix = _what_is_safe(repeat, reply), _what_to_do(reply)
        return VastError(what, reply.status, code, safe, fix, contract=reply.contract, retry_after_s=waits)


def _what_is_safe(repeat: str, reply: _Reply) -> str:
    """What a refused request left alone; empty where it may have had its effect, or left something behind."""
    if repeat == SAFE:
        return "it was only a question"
    certain = _is_certain_refusal(reply) and not reply.contract
    return "the API refused it, and nothing was changed by it" if certain else ""


def _what_to_do(reply: _Reply) -> str:
    if reply.status in _RETRY_STATUSES:
        return "wait a minute, then run again"
    return "run again: what is there is looked up anew" if reply.is_missing else ""


def _refused_key(reply: _Reply, said: str) -> VastError:
    """Neither is mended by waiting."""
    if _SECOND_FACTOR.search(said):
        what = f"the API asks for a new two-factor login ({said})"
        fix = (
            "log in to the provider's console with the second factor, make an API key there that belongs to no "
            "session, and put it into the file named by api_key_file"
        )
    else:
        what = f"the API refused the key ({said})"
        fix = "check the file named by api_key_file, or the environment variable VAST_API_KEY"
    return VastError(what, reply.status, "auth_error", safe="nothing was changed", fix=fix, kind="config")


def _unpaid(reply: _Reply, said: str) -> VastError:
    """No other offer and no later try cures it; only the tenant's money does."""
    return VastError(
        f"the account has no credit ({said})",
        reply.status,
        reply.code or "missing_billing",
        safe="the provider did nothing; with no credit left it stops every box and deletes its disk later",
        fix="pay in at the provider's console (Billing), then run again; vast_account_info says what is left",
        kind="budget",
        contract=reply.contract,
    )


def _worth_repeating(reply: _Reply) -> bool:
    """A busy or broken server, or a success that cannot be read; but a used-up search quota lasts till midnight."""
    if reply.code == "search_quota_exceeded":
        return False
    return reply.status in _RETRY_STATUSES or (reply.status < 300 and not reply.is_json)


def _is_certain_refusal(reply: _Reply) -> bool:
    """The API itself said no before it rented: its own JSON below 500, or the rate limiter's text."""
    if reply.status == 429:
        return True
    return reply.status < 500 and bool(reply.fields) and (bool(reply.code) or reply.fields.get("success") is False)


def _never_sent(reason: Any) -> Exception:
    """Whether a failed request can have reached the server: refused connections, DNS and TLS failures cannot."""
    text = type(reason).__name__ if isinstance(reason, BaseException) else str(reason)
    if isinstance(reason, (ConnectionRefusedError, socket.gaierror, ssl.SSLCertVerificationError)):
        return _Unsent(text)
    return _Unanswered(text)


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and isinstance(row.get("id"), int) and not isinstance(row["id"], bool)


def _number(value: Any) -> str:
    text = str(value)
    if not re.match(r"[0-9]{1,18}\Z", text):
        raise TenantFailure("config", f"{text[:40]!r} is not the number of an instance, offer or key")
    return text


def _usable_key(api_key: str) -> str:
    key = (api_key or "").strip()
    if not key:
        raise TenantFailure(
            "config",
            "there is no API key",
            safe="nothing was asked",
            fix="name a file in api_key_file (vast_api_key_file in the inventory), or set VAST_API_KEY",
        )
    if not re.match(r"[\x21-\x7e]+\Z", key):
        raise TenantFailure(
            "config",
            "the API key holds blanks or characters that no key has",
            safe="nothing was asked",
            fix="the key file holds the key and nothing else",
        )
    return key


def _usable_url(url: str) -> str:
    parts = urllib.parse.urlsplit(url or DEFAULT_URL)
    if parts.scheme == "https" and parts.hostname:
        return url.rstrip("/")
    if parts.scheme == "http" and _is_private(parts.hostname or ""):
        return url.rstrip("/")
    raise TenantFailure(
        "config",
        f"api_url {url!r} is neither https nor a marketplace on this machine or a private network",
        safe="the key was not sent",
        fix="use https, or http with a loopback or private address",
    )


def _usable_result(url: str, base_url: str) -> str:
    """``url`` if it may be fetched from here: on the API's own address, or https on a public host.

    The provider names the address; it must not make the controller read the services of its own network.
    """
    try:
        parts, base = urllib.parse.urlsplit(url), urllib.parse.urlsplit(base_url)
        own = (parts.scheme, parts.hostname, parts.port) == (base.scheme, base.hostname, base.port)
    except ValueError:
        parts, own = urllib.parse.urlsplit(""), False
    public = parts.scheme == "https" and bool(parts.hostname) and not _is_private(parts.hostname or "")
    if (own or public) and not parts.username and re.match(r"[\x21-\x7e]+\Z", url):
        return url
    raise VastError(
        f"the provider gave the address {ascii(url)[:120]} for a result, which is neither its own nor https",
        200,
        "malformed",
        safe="it was not asked for",
    )


def _is_private(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False
