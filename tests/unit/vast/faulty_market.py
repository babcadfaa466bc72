# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The marketplace and its faults in this process, on a virtual clock: an opener for VastClient, without a socket."""

from __future__ import annotations

import http.client
import json
import random
import re
import urllib.error
import urllib.parse
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast.actions import Account
from ansible_collections.tenant.gpu.plugins.module_utils.vast.api import VastClient
from ansible_collections.tenant.gpu.plugins.module_utils.vast.desired import Desire, converge
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offers import Constraints
from ansible_collections.tenant.gpu.plugins.module_utils.vast.rental import Order
from wire_market import EPOCH, KEY, Answer, Clock

from gpu_tenant.marketplace.api import Api
from gpu_tenant.marketplace.calls import Call, Route
from gpu_tenant.marketplace.clock import MarketClock
from gpu_tenant.marketplace.config import MarketplaceConfig
from gpu_tenant.marketplace.dialects import USUAL, Dialect
from gpu_tenant.marketplace.engines.none import NoEngine
from gpu_tenant.marketplace.faults import script_in
from gpu_tenant.marketplace.market import Market
from gpu_tenant.marketplace.offers import CATALOGUE_SIZE
from gpu_tenant.marketplace.replies import Reply
from gpu_tenant.marketplace.requests import read_query
from gpu_tenant.marketplace.state import MarketState, StateDirectory

URL = "http://127.0.0.1:1"
_ITEM = re.compile(r"/(instances|pods|machines)/[^/]+/?\Z")
ORDER = Order("digits", "vast-a", "python:3.12", 20.0, Constraints(min_disk_gb=20.0, price_cap=50.0), wait_s=300.0)


class AtOnce(Executor):
    """Work is done when it is handed in, so that nothing depends on how threads are scheduled."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


class InMemory(StateDirectory):
    """A state that no other server will take up."""

    def text_of(self, state: MarketState) -> str:
        return ""

    def write(self, text: str) -> None:
        return


class FaultyMarket:
    """A tenant with its own state store, on a market of its own.

    :param forgetful: the market keeps its state in memory only.
    :param rate_limits: it turns away what comes sooner than its least intervals.
    """

    # How the market says that there is no such thing.
    NOT_THERE: ClassVar[dict[str, Any]] = {"success": False, "error": "not_found", "msg": "no such thing"}

    def __init__(
        self,
        folder: Path,
        *faults: dict[str, Any],
        seed: int = 0,
        machines: int = CATALOGUE_SIZE,
        forgetful: bool = False,
        credit: float | None = None,
        dialect: Dialect = USUAL,
        rate_limits: bool = False,
        moving_bids: float = 0.0,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        script = script_in({"seed": seed, "faults": list(faults)})
        config = MarketplaceConfig(
            port=0,
            api_key=KEY,
            engine="none",
            machines=machines,
            state=folder,
            boot_s=0.0,
            destroy_lag_s=0.0,
            credit=credit,
            moving_bids=moving_bids,
            seed=seed if moving_bids else 0,
            faults=script,
            dialect=dialect,
            rate_limits=rate_limits,
        )
        self.clock = Clock()
        self._jitter = random.Random(seed)
        clock = MarketClock(wall=lambda: EPOCH, monotonic=self.clock)
        directory = InMemory(folder) if forgetful else StateDirectory(folder)
        self.market = Market(config, NoEngine(), directory, clock, AtOnce())
        self.api = Api(self.market, KEY, rate_limits)
        self.store = StateStore(str(folder / "tenant"))
        self.sent: list[tuple[str, str]] = []
        # How many of the next looks at one item are answered as if there were none.
        self.hidden = 0
        self._routes = [(re.compile(_pattern(route) + "/?"), route) for route in self.api.routes()]

    # -- the tenant ----------------------------------------------------------------------------------------------

    def client(self) -> VastClient:
        return VastClient(KEY, URL, opener=self, sleep=self.sleep, clock=self.clock, jitter=self._jitter.random)

    def converge(self, state: str, offers: int = 3, **order: Any) -> dict[str, Any]:
        account = Account(self.client(), self.store)
        wanted = self.offers()[:offers]
        rises, check = order.pop("price_rises", "tell"), order.pop("check", False)
        rest = {name: order.pop(name) for name in ("mounts", "template", "reserve") if name in order}
        desire = Desire(state, replace(ORDER, **order), wanted, price_rises=rises, **rest)
        return converge(account, desire, check)

    def offers(self) -> list[int]:
        """Ids of what can be rented, the cheapest first; read past the faults."""
        rows = self.market.listing.offer_rows(interruptible=True, allocated_gb=20.0)
        free = [row for row in rows if row["rentable"] and row["disk_space"] >= 20]
        return [row["id"] for row in sorted(free, key=lambda row: (row["dph_total"], row["id"]))]

    def rent_for_another(self) -> int:
        """An instance of the same account that is none of ours."""
        body = {"image": "debian:12", "disk": 10, "label": "somebody's own"}
        done = self.request("PUT", f"/api/v0/asks/{self.offers()[-1]}/", body)
        return int(done.body["new_contract"])

    # -- the market's side ---------------------------------------------------------------------------------------

    def inject(self, kind: str, call: str, **options: Any) -> int:
        fault = {"kind": kind, "call": call, **options}
        return int(self.request("POST", "/control/faults", {"faults": [fault]}).body["ids"][0])

    def clear(self) -> None:
        self.request("DELETE", "/control/faults", {})

    def faults(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self.request("GET", "/control/faults", {}).body["faults"]
        return listed

    def rows(self) -> dict[int, dict[str, Any]]:
        return {row["id"]: row for row in self.market.listing.instance_rows()}

    def count(self, method: str, path: str) -> int:
        return len([one for one in self.sent if one[0] == method and re.search(path, one[1])])

    def sleep(self, seconds: float) -> None:
        self.clock.sleep(seconds)
        self.market.tick()

    # -- the wire ------------------------------------------------------------------------------------------------

    def request(self, method: str, path: str, body: dict[str, Any], query: str = "", key: str = KEY) -> Reply:
        for pattern, route in self._routes:
            match = pattern.fullmatch(path)
            if match and route.method == method:
                call = Call(method, path, match.groupdict(), read_query(query), body, URL, key)
                return self.api.answer(route, call)
        return Reply(404, {"success": False, "error": "not_found", "msg": f"no route {method} {path}"})

    def open(self, request: Any, timeout: float) -> Answer:
        parts = urllib.parse.urlsplit(request.full_url)
        body = json.loads(request.data) if request.data else {}
        self.sent.append((request.get_method(), parts.path))
        key = str(request.get_header("Authorization")).removeprefix("Bearer ")
        if self.hidden and request.get_method() == "GET" and _ITEM.search(parts.path):
            self.hidden -= 1
            answer = Answer(404, _bytes(self.NOT_THERE), {})
            raise urllib.error.HTTPError(request.full_url, 404, "Not Found", answer.headers, answer)
        reply = self.request(request.get_method(), parts.path, body, parts.query, key)
        self.clock.now += 0.05 + min(reply.delay_s, timeout)
        if reply.delay_s >= timeout:
            raise TimeoutError("timed out")
        if reply.cut:
            raise http.client.RemoteDisconnected("Remote end closed connection without response")
        answer = Answer(reply.status, _bytes(reply.body), {"Date": self.market.clock.http_date(), **reply.headers})
        if reply.status >= 400:
            raise urllib.error.HTTPError(request.full_url, reply.status, "refused", answer.headers, answer)
        return answer


def _pattern(route: Route) -> str:
    numbers = re.sub(r"\{(\w+):int\}", r"(?P<\1>[0-9]+)", route.path)
    return re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", numbers)


def _bytes(body: Any) -> bytes:
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()
