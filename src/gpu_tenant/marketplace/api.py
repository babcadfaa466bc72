# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The market's REST, as the official client speaks it: requests in, replies out, no HTTP library in between."""

from __future__ import annotations

import json
import secrets
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

from .account_routes import AccountRoutes
from .calls import Call, Route
from .command_routes import CommandRoutes
from .copy_routes import CopyRoutes
from .credit_routes import CreditRoutes
from .daemon_log import daemon_log
from .fault_routes import FaultRoutes
from .filters import BadFilter, matching
from .instances import Phase
from .lambda_cloud.routes import LambdaRoutes
from .market import Market
from .money_routes import MoneyRoutes
from .overview import is_local, overview_page
from .pages import after_place, keyset_order, read_token, selected, write_token
from .paperspace.routes import PaperspaceRoutes
from .price_routes import PriceRoutes
from .ready_rows import ReadyRow
from .refusals import MarketError
from .replies import Reply, key_row, refusal_body, refusal_reply
from .requests import (
    bid_in,
    ids_in,
    instance_in,
    json_parameter,
    number_in,
    order_from,
    order_in,
    page_limit,
    public_key_in,
)
from .reservation_routes import ReservationRoutes
from .results import Results
from .rows import FILTERABLE
from .runpod.desk import PodDesk
from .runpod.graphql_routes import GraphqlRoutes
from .runpod.routes import RunpodRoutes
from .runpod.second_routes import SecondRoutes
from .templates import TemplateRoutes
from .volume_routes import VolumeRoutes

LIST_LIMIT = 25
# What a disk has at least; prices on the overview are with one of this size.
LEAST_DISK_GB = 10.0


class Api:
    """Everything the market answers; :meth:`answer` never raises."""

    def __init__(self, market: Market, api_key: str, rate_limits: bool = False) -> None:
        self._market = market
        self._api_key = api_key
        self._rate_limits = rate_limits
        self._dialect = market.config.dialect
        self._last_call: dict[str, float] = {}
        self._results = Results()
        self._account = AccountRoutes(market.books)
        self._templates = TemplateRoutes(market.books)
        self._commands = CommandRoutes(market, self._results)
        self._lock = threading.Lock()
        self._volumes = VolumeRoutes(market.books, market.boxes)
        self._money = MoneyRoutes(market.money)
        self._prices = PriceRoutes(market.rises)
        self._reservations = ReservationRoutes(market.reservations)
        self._faults = FaultRoutes(market)
        self._copies = CopyRoutes(market, self._faults.of_copy)
        desk = PodDesk(market, api_key)
        self._runpod = [*RunpodRoutes(desk).routes(), *SecondRoutes(desk).routes(), *GraphqlRoutes(desk).routes()]
        self._lambda = LambdaRoutes(market, api_key)
        self._paperspace = PaperspaceRoutes(market, api_key)

    def routes(self) -> list[Route]:
        v0, v1 = "/api/v0", "/api/v1"
        one = f"{v0}/instances/{{id:int}}"
        return [
            Route("GET", "/", self.overview, public=True),
            Route("GET", f"{v0}/users/current", self.show_user, call="user"),
            Route("GET", f"{v0}/gpu_names/unique", self.gpu_names, public=True),
            Route("POST", f"{v0}/bundles", self.search, call="search"),
            Route("GET", f"{v0}/bundles", self.search, call="search"),
            Route("PUT", f"{v0}/search/asks", self.search_asks, call="search"),
            Route("PUT", f"{v0}/asks/{{id:int}}", self.create, interval_s=4.5, call="create"),
            Route("POST", f"{v0}/asks/bulk", self.create_many, interval_s=4.5, call="create"),
            Route("GET", f"{v1}/instances", self.list_instances, interval_s=1.0, call="list"),
            Route("GET", f"{v0}/instances", self.retired_list),
            Route("PUT", f"{v0}/instances", self.change_many, interval_s=1.0, call="change"),
            Route("DELETE", f"{v0}/instances", self.destroy_many, interval_s=3.0, call="destroy"),
            Route("GET", f"{v0}/instances/filters", self.list_filters),
            Route("GET", one, self.show, interval_s=2.0, call="show"),
            Route("PUT", one, self.change, interval_s=1.0, call="change"),
            Route("DELETE", one, self.destroy, interval_s=3.0, call="destroy"),
            Route("PUT", f"{v0}/instances/reboot/{{id:int}}", self.reboot, interval_s=1.0, call="reboot"),
            Route("PUT", f"{v0}/instances/recycle/{{id:int}}", self.recycle, interval_s=1.0, call="recycle"),
            Route("PUT", f"{v0}/instances/bid_price/{{id:int}}", self.change_bid, interval_s=5.5, call="bid"),
            Route("PUT", f"{v0}/instances/request_logs/{{id:int}}", self.request_logs, call="logs"),
            *self._results.routes(),
            *self._commands.routes(),
            Route("GET", f"{one}/ssh", self.list_instance_keys, call="keys"),
            Route("POST", f"{one}/ssh", self.attach_key, call="keys"),
            Route("DELETE", f"{one}/ssh/{{key:int}}", self.detach_key, interval_s=2.0, call="keys"),
            Route("GET", f"{v0}/ssh", self.list_keys, call="keys"),
            Route("POST", f"{v0}/ssh", self.add_key, interval_s=1.0, call="keys"),
            Route("PUT", f"{v0}/ssh/{{id:int}}", self.change_key, interval_s=1.0, call="keys"),
            Route("DELETE", f"{v0}/ssh/{{id:int}}", self.delete_key, call="keys"),
            *self._money.routes(),
            *self._account.routes(),
            *self._templates.routes(),
            *self._copies.routes(),
            *self._volumes.routes(),
            *self._prices.routes(),
            *self._reservations.routes(),
            *CreditRoutes(self._market.solvency).routes(),
            *self._faults.routes(),
            *self._runpod,
            *self._lambda.routes(),
            *self._paperspace.routes(),
            Route("POST", "/control/preempt", self.control_preempt),
            Route("POST", "/control/release", self.control_release),
            Route("POST", "/control/traffic", self.control_traffic),
            Route("GET", "/control/bill", lambda _call: self._market.money.bill()),
            Route("GET", "/control/state", self.control_state),
        ]

    def answer(self, route: Route, call: Call) -> Reply:
        if route.inner is not None:
            route, call = route.inner(call)
        try:
            if not route.public:
                self._authorize(call)
                self._account.note(call)
        except MarketError as refusal:
            return refusal_reply(refusal)
        reply = self._faults.around(route, call, lambda: self._handled(route, call))
        if route.method != "GET":
            # What is answered outlives a crash. Changes that come of themselves are written down by the next tick.
            self._market.books.flush()
        return reply

    def _handled(self, route: Route, call: Call) -> Reply:
        try:
            limited = self._too_frequent(route)
            if limited is not None:
                return limited
            result = route.handler(call)
        except MarketError as refusal:
            return refusal_reply(refusal)
        except BadFilter as bad:
            return refusal_reply(MarketError(400, "invalid_request", str(bad)))
        return result if isinstance(result, Reply) else Reply(200, result)

    def _authorize(self, call: Call) -> None:
        if call.token is None:
            raise MarketError(403, "auth_error", "This action requires login.")
        if not secrets.compare_digest(call.token.encode(), self._api_key.encode()):
            raise MarketError(int(self._dialect.bad_key), "auth_error", "Invalid user key")

    def _too_frequent(self, route: Route) -> Reply | None:
        if not self._rate_limits or route.interval_s == 0:
            return None
        name = f"{route.method} {route.path}"
        with self._lock:
            now = self._market.clock.elapsed()
            left = self._last_call.get(name, -1e9) + route.interval_s - now
            if left > 0:
                headers = {"Retry-After": f"{left:.1f}"}
                return Reply(429, f"API requests too frequent: endpoint threshold={route.interval_s}", headers)
            self._last_call[name] = now
        return None

    # --- account ------------------------------------------------------------------------------------------------

    def show_user(self, _call: Call) -> dict[str, Any]:
        keys = self._market.ssh_keys.of_account()
        credit = round(self._market.money.credit(), 6)
        return {
            "id": 100001,
            "email": "tenant@marketplace.invalid",
            "username": "tenant",
            "balance": 0.0,
            "credit": credit,
            "ssh_key": keys[0].public_key if keys else None,
            "sid": "marketplace",
            "key_id": 1,
            "host_agreement_accepted": False,
            "can_pay": True,
            "has_billing": True,
            **self._account.profile(),
        }

    def gpu_names(self, _call: Call) -> dict[str, Any]:
        return {"gpu_names": self._market.listing.gpu_names()}

    def list_keys(self, _call: Call) -> list[dict[str, Any]]:
        return [key_row(key) for key in self._market.ssh_keys.of_account()]

    def add_key(self, call: Call) -> dict[str, Any]:
        return {"success": True, "key": key_row(self._market.ssh_keys.add(public_key_in(call.body)))}

    def change_key(self, call: Call) -> dict[str, Any]:
        changed = self._market.ssh_keys.change(int(call.parameters["id"]), public_key_in(call.body))
        return {"success": True, "key": key_row(changed)}

    def delete_key(self, call: Call) -> dict[str, Any]:
        self._market.ssh_keys.delete(int(call.parameters["id"]))
        return {"success": True}

    # --- offers -------------------------------------------------------------------------------------------------

    def search(self, call: Call) -> dict[str, Any]:
        body = call.body or json_parameter(call.query, "q", {})
        return {"offers": self._found(body)}

    def search_asks(self, call: Call) -> dict[str, Any]:
        wanted = call.body.get("q", {})
        return {"offers": self._found(wanted if isinstance(wanted, Mapping) else {})}

    def _found(self, wanted: Mapping[str, Any]) -> list[ReadyRow]:
        kind = str(wanted.get("type") or "on-demand")
        interruptible = kind in ("bid", "interruptible")
        allocated = number_in(wanted, "allocated_storage", 5.0)
        order = list(wanted.get("order") or [["score", "desc"]])
        default = int(self._dialect.search_limit)
        limit = int(number_in(wanted, "limit", default)) or default
        return self._market.listing.found_offers(interruptible, allocated, wanted, order, max(limit, 0))

    # --- renting ------------------------------------------------------------------------------------------------

    def create(self, call: Call) -> dict[str, Any]:
        offer_id = int(call.parameters["id"])
        try:
            body = self._templates.applied(call.body)
            order = self._volumes.with_volume(order_from(offer_id, body), body)
            instance = self._market.contracts.rent(order)
        except MarketError as refusal:
            refusal.extra.setdefault("ask_id", offer_id)
            raise
        return {"success": True, "new_contract": instance.id, "instance_api_key": instance.api_key}

    def create_many(self, call: Call) -> dict[str, Any]:
        results = []
        for offer_id in ids_in(call.body, "ids"):
            try:
                instance = self._market.contracts.rent(order_from(offer_id, self._templates.applied(call.body)))
                results.append({"success": True, "ask_id": offer_id, "new_contract": instance.id})
            except MarketError as refusal:
                results.append({**refusal_body(refusal), "ask_id": offer_id})
        return {"success": all(result["success"] for result in results), "results": results}

    # --- instances ----------------------------------------------------------------------------------------------

    def list_instances(self, call: Call) -> Reply | dict[str, Any]:
        filters = json_parameter(call.query, "select_filters", {})
        order = order_in(call.query)
        found = matching(self._market.listing.stored_rows(), filters, FILTERABLE)
        ordered = keyset_order(found, order)
        after = call.query.get("after_token")
        if after:
            ordered = ordered[after_place(ordered, read_token(after), order) :]
        limit = page_limit(call.query, LIST_LIMIT, LIST_LIMIT)
        page = ordered[:limit]
        more = len(ordered) > limit
        shown = self._market.listing.instance_rows([row["id"] for row in page])
        columns = json_parameter(call.query, "select_cols", None)
        return {
            "success": True,
            "instances_found": len(page),
            "total_instances": len(found),
            "label_counts": dict(Counter(row["label"] or "" for row in found)),
            "next_token": write_token(page[-1], order) if more else None,
            "instances": [selected(row, columns) for row in shown],
        }

    def retired_list(self, _call: Call) -> Reply:
        if self._dialect.old_list == "served":
            return Reply(200, {"instances": self._market.listing.instance_rows()})
        message = "/api/v0/instances/ is deprecated. Use /api/v1/instances/ instead."
        return Reply(410, {"success": False, "error": "deprecated_endpoint", "msg": message})

    def list_filters(self, _call: Call) -> dict[str, Any]:
        names = ("actual_status", "verification", "gpu_name")
        seen = {tuple(row[name] for name in names) for row in self._market.listing.stored_rows()}
        return {"filters": [dict(zip(names, one, strict=True)) for one in sorted(seen, key=str)]}

    def show(self, call: Call) -> dict[str, Any]:
        number = int(call.parameters["id"])
        row = self._market.listing.find_row(number)
        if row is None and self._dialect.missing == "404":
            raise MarketError(404, "no_such_instance", f"Instance {number} not found.")
        return {"instances": row}

    def change(self, call: Call) -> dict[str, Any]:
        self._change(int(call.parameters["id"]), call.body)
        return {"success": True}

    def change_many(self, call: Call) -> dict[str, Any]:
        for instance_id in self._known(ids_in(call.body, "ids")):
            self._change(instance_id, call.body)
        return {"success": True}

    def _known(self, instance_ids: list[int]) -> list[int]:
        """The same ids, when every one of them exists: a bulk request does all or nothing."""
        for instance_id in instance_ids:
            self._market.books.instance(instance_id)
        return instance_ids

    def _change(self, instance_id: int, body: Mapping[str, Any]) -> None:
        if "label" in body:
            label = str(body["label"] or "")
            if len(label) > 1024:
                raise MarketError(400, "label_too_long", "A label has at most 1024 characters.")
            self._market.contracts.label(instance_id, label)
        elif body.get("state") == "running":
            self._market.contracts.start(instance_id)
        elif body.get("state") == "stopped":
            self._market.contracts.stop(instance_id)
        else:
            raise MarketError(400, "invalid_args", "state must be running or stopped, or label given.")

    def destroy(self, call: Call) -> dict[str, Any]:
        self._market.contracts.destroy(int(call.parameters["id"]))
        return {"success": True}

    def destroy_many(self, call: Call) -> dict[str, Any]:
        for instance_id in self._known(ids_in(call.body, "instance_ids")):
            self._market.contracts.destroy(instance_id)
        return {"success": True}

    def reboot(self, call: Call) -> dict[str, Any]:
        self._market.contracts.restart(int(call.parameters["id"]), Phase.REBOOTING)
        return {"success": True}

    def recycle(self, call: Call) -> dict[str, Any]:
        self._market.contracts.restart(int(call.parameters["id"]), Phase.RECYCLING)
        return {"success": True}

    def change_bid(self, call: Call) -> dict[str, Any]:
        price = call.body.get("price")
        self._market.auction.change_bid(int(call.parameters["id"]), None if price is None else bid_in(price))
        return {"success": True}

    def request_logs(self, call: Call) -> dict[str, Any]:
        number = int(call.parameters["id"])
        daemon = str(call.body.get("daemon_logs") or "").lower() == "true"
        text = daemon_log(self._market.books.instance(number)) if daemon else self._market.boxes.log_text(number)
        wanted = str(call.body.get("filter") or "")
        lines = [line for line in text.splitlines() if wanted in line]
        tail = call.body.get("tail")
        if tail not in (None, ""):
            lines = lines[-int(number_in(call.body, "tail", 0)) :] if number_in(call.body, "tail", 0) > 0 else []
        url = self._results.keep("".join(f"{line}\n" for line in lines), call.base_url)
        return {"success": True, "result_url": url, "msg": "Logs requested."}

    def list_instance_keys(self, call: Call) -> dict[str, Any]:
        instance = self._market.books.instance(int(call.parameters["id"]))
        rows = [{"id": key.id, "name": "", "public_key": key.public_key} for key in instance.keys]
        return {"success": True, "ssh_keys": json.dumps(rows)}

    def attach_key(self, call: Call) -> dict[str, Any]:
        key = self._market.ssh_keys.attach(int(call.parameters["id"]), public_key_in(call.body))
        text = json.dumps({**key_row(key), "default": False, "private_key": None})
        return {"success": True, "msg": "SSH key added to instance.", "key": text}

    def detach_key(self, call: Call) -> dict[str, Any]:
        self._market.ssh_keys.detach(int(call.parameters["id"]), int(call.parameters["key"]))
        return {"success": True, "msg": "SSH key removed from instance."}

    # --- rehearsal ----------------------------------------------------------------------------------------------

    def control_traffic(self, call: Call) -> dict[str, Any]:
        """Gigabytes that a box moved, which no engine meters: they are billed as if its host had counted them."""
        moved = {"bwd": number_in(call.body, "download_gb", 0.0), "bwu": number_in(call.body, "upload_gb", 0.0)}
        if not all(0 <= gigabytes < float("inf") for gigabytes in moved.values()):
            raise MarketError(400, "invalid_args", "download_gb and upload_gb are numbers from 0 up.")
        instance_id = self._market.books.instance(instance_in(call.body)).id
        amount = sum(self._market.money.meter(instance_id, kind, size) for kind, size in moved.items() if size)
        return {"success": True, "amount": amount}

    def control_preempt(self, call: Call) -> dict[str, Any]:
        return {"success": True, "market_price": self._market.auction.preempt(instance_in(call.body))}

    def overview(self, call: Call) -> Reply:
        """The page for a person at this machine, who needs no key to look."""
        if not is_local(call.base_url):
            raise MarketError(403, "not_authorized", "The overview is only shown to this machine, by its own address.")
        offers = self._market.listing.offer_rows(interruptible=False, allocated_gb=LEAST_DISK_GB)
        money = self._market.money
        return overview_page(offers, self.control_state(call), money.bill(), money.credit())

    def control_state(self, _call: Call) -> dict[str, Any]:
        return {**self._market.control_state(), **self._faults.shown()}

    def control_release(self, call: Call) -> dict[str, Any]:
        return {"success": True, "market_price": self._market.auction.release(instance_in(call.body))}
