# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The market's REST for the account itself: its environment variables, its profile, its keys, what was done with it."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from typing import Any

from .books import Books
from .calls import Call, Route
from .engines.base import LOOPBACK
from .refusals import MarketError
from .requests import invalid

MASK = "********"
KEY_ID = 1
# What is kept of an account's history; the market has no use for it itself.
KEPT_ACTIONS = 500
LONGEST_VALUE = 4096
_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,127}\Z")
# What a tenant may say about itself.
PROFILE = frozenset(
    {"fullname", "username", "email", "phone_number", "billaddress_line1", "billaddress_line2", "billaddress_city",
     "billaddress_zip", "billaddress_country", "billaddress_taxinfo", "balance_threshold_enabled",
     "balance_threshold", "autobill_threshold", "mobile_number", "password"}
)  # fmt: skip


class AccountRoutes:
    def __init__(self, books: Books) -> None:
        self._books = books
        self._actions: deque[dict[str, Any]] = deque(maxlen=KEPT_ACTIONS)
        self._first_seen: float | None = None

    def routes(self) -> list[Route]:
        v0 = "/api/v0"
        return [
            Route("GET", f"{v0}/secrets", self.list_variables, interval_s=3.0, call="user"),
            Route("POST", f"{v0}/secrets", self.add_variable, interval_s=3.0, call="user"),
            Route("PUT", f"{v0}/secrets", self.change_variable, interval_s=3.0, call="user"),
            Route("DELETE", f"{v0}/secrets", self.delete_variable, interval_s=3.0, call="user"),
            Route("PUT", f"{v0}/users", self.change_profile, call="user"),
            Route("GET", f"{v0}/audit_logs", self.list_actions, call="user"),
            Route("GET", f"{v0}/users/me/ipaddrs", self.list_addresses, call="user"),
            Route("GET", f"{v0}/subaccounts", lambda _call: {"users": []}, call="user"),
            Route("GET", f"{v0}/auth/apikeys", self.list_api_keys, interval_s=1.0, call="user"),
            Route("GET", f"{v0}/auth/apikeys/{{id:int}}", self.show_api_key, call="user"),
            Route("GET", f"{v0}/tfa/status", self.second_factor, call="user"),
            Route("GET", f"{v0}/commands/schedule_job", lambda _call: [], call="user"),
            Route("GET", f"{v0}/invoices", self.search_invoices, interval_s=3.0, call="money"),
            Route("POST", f"{v0}/contracts/fetch", self.fetch_contracts, call="user"),
            # The account lets no machine and runs nothing serverless.
            Route("GET", f"{v0}/machines", lambda _call: {"machines": []}, call="user"),
            Route("GET", f"{v0}/endptjobs", lambda _call: {"success": True, "results": []}, call="user"),
            Route("GET", f"{v0}/autojobs", lambda _call: {"success": True, "results": []}, call="user"),
        ]

    # --- environment variables that every new box is given --------------------------------------------------------

    def list_variables(self, _call: Call) -> dict[str, Any]:
        """By name only: no value ever leaves the market, except into a box."""
        with self._books.reading() as (state, _now):
            return {"success": True, "secrets": dict.fromkeys(state.secrets, MASK)}

    def add_variable(self, call: Call) -> dict[str, Any]:
        name, value = _name_in(call.body), _value_in(call.body)
        with self._books.changing() as (state, _now):
            if name in state.secrets:
                raise invalid(f"There is an environment variable {name} already.")
            state.secrets = {**state.secrets, name: value}
        return {"success": True, "msg": f"Environment variable {name} created."}

    def change_variable(self, call: Call) -> dict[str, Any]:
        name, value = _name_in(call.body), _value_in(call.body)
        with self._books.changing() as (state, _now):
            _require(state.secrets, name)
            state.secrets = {**state.secrets, name: value}
        return {"success": True, "msg": f"Environment variable {name} updated."}

    def delete_variable(self, call: Call) -> dict[str, Any]:
        name = _name_in(call.body)
        with self._books.changing() as (state, _now):
            _require(state.secrets, name)
            state.secrets = {known: value for known, value in state.secrets.items() if known != name}
        return {"success": True, "msg": f"Environment variable {name} deleted."}

    # --- the account ----------------------------------------------------------------------------------------------

    def profile(self) -> dict[str, Any]:
        """What the tenant said about itself."""
        with self._books.reading() as (state, _now):
            return dict(state.profile)

    def change_profile(self, call: Call) -> dict[str, Any]:
        """A password is taken, and kept nowhere."""
        unknown = sorted(set(call.body) - PROFILE)
        if unknown or not all(isinstance(value, (str, int, float, bool)) for value in call.body.values()):
            raise invalid(f"of a user one can set {', '.join(sorted(PROFILE))}, each to a text, a number or a truth")
        told = {name: value for name, value in call.body.items() if name != "password"}
        with self._books.changing() as (state, _now):
            state.profile = {**state.profile, **told}
        return {"success": True, **told}

    def note(self, call: Call) -> None:
        """Remember who asked; of what changes something, what was done."""
        changes = call.method != "GET" and not call.path.startswith("/control/")
        if self._first_seen is not None and not changes:
            return
        now = self._books.clock.now()
        self._first_seen = self._first_seen or now
        if changes:
            # Never the values: there are secrets among them.
            told = {"api_route": f"{call.method} {call.path}", "args": ", ".join(sorted(call.body))}
            self._actions.append({"ip_address": LOOPBACK, "api_key_id": KEY_ID, "created_at": now, **told})

    def list_actions(self, _call: Call) -> list[dict[str, Any]]:
        return list(self._actions)

    def list_addresses(self, _call: Call) -> dict[str, Any]:
        return {"results": [{"ip": LOOPBACK, "first_seen": self._first_seen, "first_location": "this machine"}]}

    def list_api_keys(self, _call: Call) -> dict[str, Any]:
        return {"apikeys": [self._api_key()]}

    def show_api_key(self, call: Call) -> dict[str, Any]:
        if int(call.parameters["id"]) != KEY_ID:
            raise MarketError(404, "not_found", f"API key {call.parameters['id']} not found.")
        return self._api_key()

    def _api_key(self) -> dict[str, Any]:
        """The one that the marketplace was started with; never the key itself."""
        return {"id": KEY_ID, "name": "marketplace", "key": MASK, "permissions": {"api": {}}, "created_at": None}

    def second_factor(self, _call: Call) -> dict[str, Any]:
        return {"success": True, "tfa_enabled": False, "methods": [], "backup_codes_remaining": 0}

    def search_invoices(self, _call: Call) -> list[dict[str, Any]]:
        """Those of payments, of which this market takes none: an account is given its credit."""
        return []

    def fetch_contracts(self, call: Call) -> dict[str, Any]:
        """The contracts, also ended ones, of a label and among these ids, where either is given."""
        label = call.body.get("label")
        among = {str(one) for one in call.body.get("contract_ids") or ()}
        with self._books.reading() as (state, _now):
            rows = [
                {"id": one.id, "label": one.label, "machine_id": one.machine_id, "start_date": one.created_at}
                for one in state.instances.values()
                if (label is None or one.label == label) and (not among or str(one.id) in among)
            ]
        return {"success": True, "contracts": rows}


def _name_in(body: Mapping[str, Any]) -> str:
    name = str(body.get("key") or "").upper()
    if not _NAME.match(name):
        raise invalid("key must be a variable's name: letters, digits and underscores")
    return name


def _value_in(body: Mapping[str, Any]) -> str:
    value = body.get("value")
    if not isinstance(value, str) or not value or len(value) > LONGEST_VALUE or "\0" in value:
        raise invalid(f"value must be a text of 1 to {LONGEST_VALUE} characters")
    return value


def _require(known: Mapping[str, str], name: str) -> None:
    if name not in known:
        raise MarketError(404, "not_found", f"There is no environment variable {name}.")
