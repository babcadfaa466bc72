# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The client of vast.ai's REST API: its endpoints, and how its errors read. It decides nothing about boxes.

Failures come in three dresses: a status, a 200 with ``success: false``, and text that is not JSON. An unknown key is
a 404 just as a missing instance is; ``error`` tells them apart.
"""

from __future__ import annotations

import http.client
import json
import re
import urllib.parse
import urllib.request
from typing import Any, Callable, Iterator, TypeVar

from ..failures import TenantFailure
from ..rest_client import (
    GAVE_UP_STATUSES,
    IDEMPOTENT,
    ONCE,
    SAFE,
    AmbiguousAnswer,
    Reply,
    RestClient,
    RestError,
    is_private,
)

Result = TypeVar("Result")


PAGE_SIZE = 25
_MAX_PAGES = 400
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


class VastError(RestError):
    """The API refused, or could not be understood.

    :param contract: the id of an instance that the failed create left behind, 0 when none.
    """

    def __init__(self, what: str, *args: Any, contract: int = 0, **keywords: Any) -> None:
        super().__init__(what, *args, **keywords)
        self.contract = contract


class AmbiguousVast(VastError, AmbiguousAnswer):
    """A request was sent and may have had its effect: only another look can tell."""


class VastReply(Reply):
    """One answer, in whichever of its dresses."""

    MESSAGE_FIELDS = ("msg", "message", "detail")
    EMPTY_IS_AN_ANSWER = False
    LASTING_CODES = ("search_quota_exceeded",)  # it lasts till midnight

    @property
    def code(self) -> str:
        """The API's word for what went wrong. Some endpoints say ``invalid_args`` and hide the word in the message."""
        hidden = re.search(r"\b(no_such_[a-z_]+)\b", self.message)
        if hidden:
            return hidden.group(1)
        code = self.fields.get("error")
        return code if isinstance(code, str) else ""

    @property
    def is_refused(self) -> bool:
        return self.status >= 300 or self.fields.get("success") is False

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
        known = self.code in _MISSING_CODES or self.code.startswith("no_such_")
        return known and not self.is_auth_error

    @property
    def is_certain_refusal(self) -> bool:
        """The API itself said no before it rented: its own JSON below 500, or the rate limiter's text."""
        if self.status == 429:
            return True
        if self.status in GAVE_UP_STATUSES:
            return False
        said_no = bool(self.code) or self.fields.get("success") is False
        return self.status < 500 and bool(self.fields) and said_no

    @property
    def left_something(self) -> bool:
        return bool(self.contract)

    @property
    def contract(self) -> int:
        value = self.fields.get("new_contract")
        return value if isinstance(value, int) and not isinstance(value, bool) else 0


class VastClient(RestClient[VastReply]):
    """One account on one API, vast.ai's or the marketplace's."""

    PLATFORM = "vast"
    URL = "https://console.vast.ai"
    HOSTS = ("console.vast.ai", "cloud.vast.ai")
    KEY_VARIABLE = "VAST_API_KEY"
    URL_VARIABLE = "VAST_URL"
    INTERVALS = MARKET_INTERVALS
    REPLY = VastReply
    ERROR = VastError
    AMBIGUOUS = AmbiguousVast

    def error_of(self, method: str, path: str, repeat: str, reply: VastReply) -> RestError:
        if reply.is_unpaid and not reply.is_auth_error:
            return _unpaid(reply, self.redact(reply.message) or "no reason given")
        error = super().error_of(method, path, repeat, reply)
        if isinstance(error, VastError):
            error.contract = reply.contract
        return error

    def refused_key(self, reply: VastReply, said: str) -> RestError:
        """Neither is mended by waiting."""
        error = super().refused_key(reply, said)
        if _SECOND_FACTOR.search(said):
            error.what = f"the API asks for a new two-factor login ({said})"
            error.fix = (
                "log in to the provider's console with the second factor, make an API key there that belongs to no "
                "session, and put it into the file named by api_key_file"
            )
        return error

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
        reply = self.request("GET", path, SAFE, "show", query={"owner": "me"}, missing_ok=True)
        if reply.status == 404:
            return None
        if "instances" not in reply.fields:
            raise self.malformed(f"the answer about instance {instance_id} has no 'instances'")
        row = reply.fields["instances"]
        if row is None:
            return None
        if not _is_row(row) or str(row["id"]) != str(instance_id):
            raise self.malformed(f"the answer about instance {instance_id} is about something else")
        return dict(row)

    def search_offers(self, filters: dict[str, Any]) -> list[dict[str, Any]]:
        """Offers that match; an empty list means that the market has none."""
        reply = self.request("POST", "/api/v0/bundles/", SAFE, "search", body=filters)
        return self._rows(reply, "offers")

    def list_ssh_keys(self) -> list[dict[str, Any]]:
        reply = self.request("GET", "/api/v0/ssh/", SAFE, "ssh")
        if isinstance(reply.json, list):
            return self._rows(reply, "")
        return self._rows(reply, "ssh_keys")

    def user(self) -> dict[str, Any]:
        """The account: ``id``, ``credit``, ``balance``, …; never its key."""
        reply = self.request("GET", "/api/v0/users/current", SAFE, "user")
        if "id" not in reply.fields:
            raise self.malformed("the answer about the account has no 'id'")
        return {name: value for name, value in reply.fields.items() if name not in ("api_key", "ssh_key")}

    def charges(self, since: float, until: float) -> list[dict[str, Any]]:
        """What was billed between two moments (epoch seconds): rows with ``source``, ``amount`` and ``items``."""
        filters = json.dumps({"day": {"gte": int(since), "lte": int(until)}})
        query = {"select_filters": filters, "format": "tree", "limit": "100"}
        rows: list[dict[str, Any]] = []
        for reply in self._pages("/api/v0/charges/", query, "charges"):
            page = reply.fields.get("results")
            if not isinstance(page, list) or not all(isinstance(row, dict) for row in page):
                raise self.malformed("a page of charges has no list of 'results'")
            rows += page
        return rows

    def connections(self) -> list[dict[str, Any]]:
        """The account's cloud connections: rows with ``id``, ``name`` and ``cloud_type``."""
        return self._rows(self.request("GET", "/api/v0/users/cloud_integrations/", SAFE, "connections"), "")

    def request_logs(self, instance_id: str, tail: int, wanted: str, daemon: bool) -> str:
        """Have an instance's log collected; where it will lie. VastError when the provider has none.

        :param tail: only this many lines from the end, 0 for all.
        :param wanted: only lines that hold this text.
        :param daemon: the host's own log of the instance, in place of the container's.
        """
        body: dict[str, Any] = {"tail": str(tail)} if tail else {}
        body.update({"filter": wanted} if wanted else {}, **({"daemon_logs": "true"} if daemon else {}))
        path = f"/api/v0/instances/request_logs/{_number(instance_id)}/"
        reply = self.request("PUT", path, SAFE, "logs", body=body)
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
        return self._rows(self.request("GET", "/api/v0/volumes", SAFE, "volumes", query=query), "volumes")

    def find_templates(self, filters: dict[str, Any]) -> list[dict[str, Any]]:
        """Templates that the account sees and that match; an empty list means that there is none."""
        query = {"select_cols": json.dumps(["*"]), "select_filters": json.dumps(filters)}
        return self._rows(self.request("GET", "/api/v0/template/", SAFE, "templates", query=query), "templates")

    def search_volume_offers(self, filters: dict[str, Any]) -> list[dict[str, Any]]:
        """Offers of volumes that match; an empty list means that the market has none."""
        reply = self.request("POST", "/api/v0/volumes/search/", SAFE, "volumes", body=filters)
        return self._rows(reply, "offers")

    def pending_price_rises(self) -> tuple[list[dict[str, Any]], bool]:
        """Raised prices that wait for an answer, of all instances, and whether the API says that these are all."""
        reply = self.request("GET", "/api/v0/instances/pending-price-increases/", SAFE, "rises")
        rows = reply.fields.get("pending_price_increases")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self.malformed("the answer has no list of 'pending_price_increases'")
        return rows, not reply.fields.get("truncated")

    def deposit(self, instance_id: str) -> dict[str, Any]:
        """What is left of what was paid ahead for an instance: dollars that come back, and months."""
        path = f"/api/v0/instances/balance/{_number(instance_id)}/"
        return dict(self.request("GET", path, SAFE, "deposit", query={"owner": "me"}).fields)

    # -- writes --------------------------------------------------------------------------------------------------

    def create_instance(self, offer_id: int, body: dict[str, Any]) -> str:
        """Rent an offer; sent once. The new instance's id.

        VastError: refused for certain (``contract`` names a stopped instance that was left behind all the same).
        AmbiguousAnswer: it may have been rented.
        """
        reply = self.request("PUT", f"/api/v0/asks/{_number(offer_id)}/", ONCE, "create", body=body)
        if not reply.contract:
            raise AmbiguousVast("the create was answered without a 'new_contract'", reply.status, "malformed")
        return str(reply.contract)

    def set_state(self, instance_id: str, state: str) -> None:
        """Ask for ``running`` or ``stopped``."""
        self._manage(instance_id, {"state": state})

    def restart_instance(self, instance_id: str, verb: str) -> None:
        """``reboot`` or ``recycle``; sent once, because a second arrival would restart the box again."""
        self.request("PUT", f"/api/v0/instances/{verb}/{_number(instance_id)}/", ONCE, "restart", body={})

    def change_bid(self, instance_id: str, price: float) -> None:
        """Bid ``price`` dollars an hour for the whole machine."""
        path = f"/api/v0/instances/bid_price/{_number(instance_id)}/"
        self.request("PUT", path, IDEMPOTENT, "bid", body={"client_id": "me", "price": price})

    def prepay(self, instance_id: str, amount: float) -> dict[str, Any]:
        """Pay ahead for an instance on demand; sent once, because a second arrival would pay again."""
        path = f"/api/v0/instances/prepay/{_number(instance_id)}/"
        return dict(self.request("PUT", path, ONCE, "prepay", body={"amount": amount}).fields)

    def answer_price_rise(self, rise_id: int, accept: bool) -> bool:
        """Accept or reject a raised price; False when it does not wait for an answer any more."""
        path = f"/api/v0/instances/{'accept' if accept else 'reject'}-price-increase/"
        body = {"pending_price_increase_id": int(_number(rise_id))}
        return self.request("PUT", path, IDEMPOTENT, "rises", body=body, missing_ok=True).status < 400

    def destroy_instance(self, instance_id: str) -> bool:
        """Destroy; False when it was gone already."""
        path = f"/api/v0/instances/{_number(instance_id)}/"
        reply = self.request("DELETE", path, IDEMPOTENT, "destroy", body={}, missing_ok=True)
        return reply.status < 400

    def create_ssh_key(self, public_key: str) -> dict[str, Any]:
        """Register a key; sent once, because a second arrival may make a second entry."""
        reply = self.request("POST", "/api/v0/ssh/", ONCE, "ssh", body={"ssh_key": public_key})
        key = reply.fields.get("key")
        return dict(key) if isinstance(key, dict) else {}

    def delete_ssh_key(self, key_id: int) -> bool:
        path = f"/api/v0/ssh/{_number(key_id)}/"
        reply = self.request("DELETE", path, IDEMPOTENT, "ssh", body={}, missing_ok=True)
        return reply.status < 400

    def create_volume(self, offer_id: int, size_gb: int, name: str) -> str:
        """Rent a volume; sent once. Its id. VastError: refused for certain. AmbiguousAnswer: it may be there."""
        body = {"id": int(_number(offer_id)), "size": size_gb, "name": name}
        reply = self.request("PUT", "/api/v0/volumes/", ONCE, "volumes", body=body)
        named = re.match(r"V\.([0-9]{1,18})\Z", str(reply.fields.get("volume_name")))
        if named is None:
            raise AmbiguousVast("the create was answered without a 'volume_name'", reply.status, "malformed")
        return named.group(1)

    def delete_volume(self, volume_id: str) -> bool:
        """Delete; False when it was gone already. The API wants the id in the query, its reference in the body."""
        number = _number(volume_id)
        reply = self.request(
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
        self.request("PUT", "/api/v0/commands/copy_direct/", IDEMPOTENT, "copy", body=body)

    def cloud_copy(self, instance_id: str, connection_id: int, transfer: str, source: str, dest: str) -> None:
        """Have the provider copy between an instance and a cloud connection. ``transfer`` is the API's word."""
        ids = {"instance_id": _number(instance_id), "selected": _number(connection_id)}
        body = dict(ids, src=source, dst=dest, transfer=transfer, flags=[])
        self.request("POST", "/api/v0/commands/rclone/", IDEMPOTENT, "copy", body=body)

    def cancel_copies(self, instance_id: str, cloud: bool) -> None:
        """End every copy into the instance, or with ``cloud`` every one between it and a cloud."""
        path = f"/api/v0/commands/{'rclone' if cloud else 'copy_direct'}/"
        self.request("DELETE", path, IDEMPOTENT, "copy", body={"client_id": "me", "dst_id": _number(instance_id)})

    # -- plumbing ------------------------------------------------------------------------------------------------

    def _manage(self, instance_id: str, body: dict[str, Any]) -> None:
        self.request("PUT", f"/api/v0/instances/{_number(instance_id)}/", IDEMPOTENT, "manage", body=body)

    def _whole_list(self) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        total: Any = None
        for reply in self._pages("/api/v1/instances/", {"limit": str(PAGE_SIZE)}, "list"):
            for row in self._rows(reply, "instances"):
                found[str(row["id"])] = row
            total = reply.fields.get("total_instances")
        if isinstance(total, bool) or not isinstance(total, int):
            raise self.malformed("the list of instances does not say how many there are")
        if len(found) < total:
            raise VastError(
                f"the list of instances is partial: {len(found)} of {total} came",
                200,
                "partial",
                safe="nothing was concluded from it",
                fix="run again in a minute",
            )
        return list(found.values())

    def _pages(self, path: str, query: dict[str, str], pace: str) -> Iterator[VastReply]:
        """Each page's answer. A token that comes again would loop for ever, so it is an error."""
        token: Any = None
        seen: set[str] = set()
        for _page in range(_MAX_PAGES):
            page_query = dict(query, after_token=token) if token else query
            reply = self.request("GET", path, SAFE, pace, query=page_query)
            yield reply
            token = reply.fields.get("next_token")
            if token is None or token == "":
                return
            if not isinstance(token, str) or token in seen:
                raise self.malformed(f"the pages of {path} do not end")
            seen.add(token)
        raise self.malformed(f"the pages of {path} do not end")

    def _rows(self, reply: VastReply, name: str) -> list[dict[str, Any]]:
        rows = reply.fields.get(name) if name else reply.json
        if not isinstance(rows, list) or not all(_is_row(row) for row in rows):
            raise self.malformed(f"the answer has no list of {name or 'rows'}")
        return rows


def _unpaid(reply: VastReply, said: str) -> VastError:
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


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and isinstance(row.get("id"), int) and not isinstance(row["id"], bool)


def _number(value: Any) -> str:
    text = str(value)
    if not re.match(r"[0-9]{1,18}\Z", text):
        raise TenantFailure("config", f"{text[:40]!r} is not the number of an instance, offer or key")
    return text


def _usable_result(url: str, base_url: str) -> str:
    """``url`` if it may be fetched from here: on the API's own address, or https on a public host.

    The provider names the address; it must not make the controller read the services of its own network.
    """
    try:
        parts, base = urllib.parse.urlsplit(url), urllib.parse.urlsplit(base_url)
        own = (parts.scheme, parts.hostname, parts.port) == (base.scheme, base.hostname, base.port)
    except ValueError:
        parts, own = urllib.parse.urlsplit(""), False
    public = parts.scheme == "https" and bool(parts.hostname) and not is_private(parts.hostname or "")
    if (own or public) and not parts.username and re.match(r"[\x21-\x7e]+\Z", url):
        return url
    raise VastError(
        f"the provider gave the address {ascii(url)[:120]} for a result, which is neither its own nor https",
        200,
        "malformed",
        safe="it was not asked for",
    )
