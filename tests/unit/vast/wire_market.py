# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A vast.ai that lives in this process: it speaks the wire, on a virtual clock, and does what a script of faults says.

It is an opener for VastClient, so that no test sleeps or needs a socket.
"""

from __future__ import annotations

import email.utils
import io
import json
import re
import urllib.error
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.vast.api import VastClient

from gpu_tenant.marketplace.dialects import USUAL, Dialect

KEY = "k3y-that-must-never-be-seen"
EPOCH = 1_780_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.slept.append(seconds)
        self.now += seconds


class Answer(io.BytesIO):
    """What an opener returns."""

    def __init__(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        super().__init__(body)
        self.status = status
        self.headers = Message()
        for name, value in headers.items():
            self.headers[name] = value


@dataclass
class Fault:
    """Happens to the next ``times`` requests that match, after ``skip`` of them went well.

    ``raises`` and ``answer`` stand in for the answer, with the effect done or not; ``rewrite`` alters it.
    """

    method: str
    path: str
    times: int = 1
    skip: int = 0
    answer: tuple[int, Any, dict[str, str]] | None = None
    raises: Callable[[], Exception] | None = None
    effect_first: bool = False
    rewrite: Callable[[Any], Any] | None = None


@dataclass
class WireMarket:
    clock: Clock = field(default_factory=Clock)
    offers: dict[int, dict[str, Any]] = field(default_factory=dict)
    instances: dict[int, dict[str, Any]] = field(default_factory=dict)
    keys: list[dict[str, Any]] = field(default_factory=list)
    charges: list[dict[str, Any]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    page_size: int = 25
    load_s: float = 20.0
    linger_s: float = 0.0
    price_drift: float = 0.0
    next_id: int = 5000
    rises: list[dict[str, Any]] = field(default_factory=list)
    rises_cut_short: bool = False
    dialect: Dialect = USUAL
    on_boot: Callable[[dict[str, Any]], None] | None = None

    def client(self, **keywords: Any) -> VastClient:
        settings: dict[str, Any] = {"opener": self, "sleep": self.clock.sleep, "clock": self.clock}
        return VastClient(KEY, "http://127.0.0.1:1", **{**settings, **keywords})

    def offer(self, offer_id: int, **changes: Any) -> dict[str, Any]:
        row: dict[str, Any] = {
            "id": offer_id,
            "machine_id": offer_id % 1000,
            "host_id": 7,
            "gpu_name": "RTX 4090",
            "num_gpus": 1,
            "gpu_ram": 24564,
            "disk_space": 200.0,
            "cuda_max_good": 12.8,
            "reliability2": 0.99,
            "direct_port_count": 20,
            "verification": "verified",
            "geolocation": "Sweden, SE",
            "dph_base": 0.4,
            "min_bid": 0.2,
            "storage_cost": 0.18,
            "inet_down_cost": 0.002,
            "inet_up_cost": 0.003,
            "inet_down": 800.0,
            "inet_up": 400.0,
            "duration": 864000.0,
        }
        row.update(changes)
        self.offers[offer_id] = row
        return row

    def add(self, label: str | None, **changes: Any) -> dict[str, Any]:
        """An instance that exists already, running since now."""
        self.next_id += 1
        row: dict[str, Any] = {
            "id": self.next_id,
            "label": label,
            "actual_status": "running",
            "intended_status": "running",
            "cur_state": "running",
            "next_state": "running",
            "status_msg": "success, running x/ssh",
            "ssh_host": "ssh5.vast.ai",
            "ssh_port": 20001,
            "public_ipaddr": "127.0.0.1 ",
            "ports": {"22/tcp": [{"HostIp": "0.0.0.0", "HostPort": "20000"}]},
            "machine_id": 1,
            "host_id": 7,
            "gpu_name": "RTX 4090",
            "num_gpus": 1,
            "gpu_ram": 24564,
            "dph_base": 0.22,
            "dph_total": 0.225,
            "storage_cost": 0.18,
            "disk_space": 20.0,
            "min_bid": 0.2,
            "is_bid": True,
            "start_date": self.epoch(),
            "end_date": self.epoch() + 864000,
            "uptime_mins": 0.0,
            "extra_env": [],
            "image_runtype": "ssh ssh_direc ssh_proxy",
        }
        row.update(changes)
        self.instances[row["id"]] = row
        return row

    def epoch(self) -> float:
        return EPOCH + self.clock.now

    def fault(self, method: str, path: str, **keywords: Any) -> Fault:
        self.faults.append(Fault(method, path, **keywords))
        return self.faults[-1]

    def sent(self, method: str, path: str) -> list[Any]:
        """Bodies of the requests of this kind, in order."""
        return [body for verb, where, body in self.requests if verb == method and re.search(path, where)]

    def stamps(self) -> list[str]:
        return [str(row["label"]) for row in self.instances.values()]

    # -- the wire ------------------------------------------------------------------------------------------------

    def open(self, request: Any, timeout: float) -> Answer:
        assert timeout > 0
        parts = urllib.parse.urlsplit(request.full_url)
        body = json.loads(request.data) if request.data else None
        assert request.get_header("Authorization") == f"Bearer {KEY}"
        assert KEY not in request.full_url
        self.clock.now += 0.05
        self.requests.append((request.get_method(), parts.path, body))
        fault = self._fault(request.get_method(), parts.path)
        if fault is None or fault.effect_first or fault.rewrite:
            query = dict(urllib.parse.parse_qsl(parts.query))
            status, found = self._serve(request.get_method(), parts.path, query, body)
        if fault and fault.raises:
            raise fault.raises()
        if fault and fault.answer:
            return self._answer(request, *fault.answer)
        return self._answer(request, status, fault.rewrite(found) if fault and fault.rewrite else found, {})

    def _fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and fault.method == method and re.search(fault.path, path):
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None

    def _answer(self, request: Any, status: int, body: Any, headers: dict[str, str]) -> Answer:
        if status >= 400:
            raise self._error(request, status, body, headers)
        return Answer(status, _bytes(body), {"Date": email.utils.formatdate(self.epoch(), usegmt=True), **headers})

    def _error(self, request: Any, status: int, body: Any, headers: dict[str, str]) -> urllib.error.HTTPError:
        message = Message()
        for name, value in {"Date": email.utils.formatdate(self.epoch(), usegmt=True), **headers}.items():
            message[name] = value
        return urllib.error.HTTPError(request.full_url, status, "refused", message, io.BytesIO(_bytes(body)))

    def _serve(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        self._tick()
        if (method, path.rstrip("/")) == ("GET", "/api/v0/volumes"):
            return 200, {"volumes": []}
        for verb, pattern, serve in _ROUTES:
            match = re.match(pattern, path)
            if verb == method and match:
                return serve(self, match, query, body)
        return 404, {"success": False, "error": "not_found", "msg": f"no route {method} {path}"}

    def _tick(self) -> None:
        for number, row in list(self.instances.items()):
            if row.get("gone_at") and self.clock.now >= row["gone_at"]:
                del self.instances[number]
            elif row.get("boots_at") and self.clock.now >= row["boots_at"] and row["cur_state"] == "running":
                row.update(actual_status="running", boots_at=None, status_msg="success, running x/ssh")
                if self.on_boot:
                    self.on_boot(row)

    def _list(self, _match: Any, query: dict[str, str], _body: Any) -> tuple[int, Any]:
        rows = sorted(self.instances.values(), key=lambda row: row["id"])
        first = int(query.get("after_token", "0"))
        page = rows[first : first + self.page_size]
        more = first + self.page_size < len(rows)
        return 200, {
            "success": True,
            "instances_found": len(rows),
            "total_instances": len(rows),
            "next_token": str(first + self.page_size) if more else None,
            "instances": page,
        }

    def _show(self, match: Any, _query: Any, _body: Any) -> tuple[int, Any]:
        row = self.instances.get(int(match.group(1)))
        if row is None and self.dialect.missing == "404":
            return 404, {"success": False, "error": "no_such_instance", "msg": "Instance not found."}
        return 200, {"instances": row}

    def _search(self, _match: Any, _query: Any, body: Any) -> tuple[int, Any]:
        return 200, {"offers": [row for row in self.offers.values() if _matches(row, body)][: body.get("limit", 64)]}

    def _create(self, match: Any, _query: Any, body: Any) -> tuple[int, Any]:
        offer = self.offers.get(int(match.group(1)))
        if offer is None:
            msg = f"error 404/3603: no_such_ask Instance type by id {match.group(1)} is not available."
            return 404, {"success": False, "error": "invalid_args", "msg": msg}
        self.next_id += 1
        bid = body["price"]
        base = offer["dph_base"] if bid is None else bid
        too_low = bid is not None and bid < offer["min_bid"]
        state = "stopped" if too_low else "running"
        storage = offer["storage_cost"] * body["disk"] / 720
        row = self.add(
            body["label"],
            id=self.next_id,
            machine_id=offer["machine_id"],
            actual_status=None,
            intended_status=state,
            cur_state=state,
            next_state=state,
            status_msg=None,
            boots_at=None if too_low else self.clock.now + self.load_s,
            dph_base=offer["dph_base"] if self.dialect.bid_base == "machine" else base,
            dph_total=base + storage + self.price_drift,
            disk_space=body["disk"],
            min_bid=offer["min_bid"],
            is_bid=bid is not None,
            extra_env=[[name, value] for name, value in body["env"].items()],
            start_date=self.epoch(),
        )
        self.next_id = row["id"]
        del self.offers[offer["id"]]
        if too_low:
            return 400, {"success": False, "error": "invalid_price", "msg": "bid too low", "new_contract": row["id"]}
        return 200, {"success": True, "new_contract": row["id"], "instance_api_key": "s3cret-of-the-box"}

    def _manage(self, match: Any, _query: Any, body: Any) -> tuple[int, Any]:
        row = self.instances.get(int(match.group(1)))
        if row is None:
            return 404, {"success": False, "error": "no_such_instance", "msg": "Instance not found."}
        if body.get("state") == "stopped":
            row.update(intended_status="stopped", cur_state="stopped", next_state="stopped")
            row.update(actual_status=self.dialect.stopped_as)
        elif body.get("state") == "running":
            row.update(intended_status="running", cur_state="running", next_state="running")
            row.update(actual_status="loading", boots_at=self.clock.now + self.load_s)
        return 200, {"success": True}

    def _bid(self, match: Any, _query: Any, body: Any) -> tuple[int, Any]:
        row = self.instances[int(match.group(1))]
        row["dph_total"] = body["price"] + row["storage_cost"] * row["disk_space"] / 720
        if self.dialect.bid_base == "bid":
            row["dph_base"] = body["price"]
        return 200, {"success": True}

    def _restart(self, match: Any, _query: Any, _body: Any) -> tuple[int, Any]:
        row = self.instances.get(int(match.group(2)))
        if row is None or row["actual_status"] not in ("running", "exited"):
            return 400, {"success": False, "error": "invalid_args", "msg": "Instance is not running."}
        row.update(
            actual_status=f"{match.group(1).rstrip('e')}ing", boots_at=self.clock.now + self.load_s, uptime_mins=0.0
        )
        return 200, {"success": True}

    def _destroy(self, match: Any, _query: Any, _body: Any) -> tuple[int, Any]:
        row = self.instances.get(int(match.group(1)))
        if row is None:
            return 404, {"success": False, "error": "no_such_instance", "msg": "Instance not found."}
        row["gone_at"] = self.clock.now + self.linger_s
        return 200, {"success": True}

    def _keys(self, _match: Any, _query: Any, _body: Any) -> tuple[int, Any]:
        return 200, self.keys

    def _add_key(self, _match: Any, _query: Any, body: Any) -> tuple[int, Any]:
        self.keys.append({"id": len(self.keys) + 1, "public_key": body["ssh_key"] + "\n"})
        return 200, {"success": True, "key": self.keys[-1]}

    def _drop_key(self, match: Any, _query: Any, _body: Any) -> tuple[int, Any]:
        kept = [row for row in self.keys if row["id"] != int(match.group(1))]
        if len(kept) == len(self.keys):
            return 400, {"success": False, "error": "no_ssh_key", "msg": "no such key"}
        self.keys[:] = kept
        return 200, {"success": True}

    def _charges(self, _match: Any, _query: Any, _body: Any) -> tuple[int, Any]:
        return 200, {"success": True, "count": len(self.charges), "next_token": None, "results": self.charges}

    def _rises(self, _match: Any, _query: Any, _body: Any) -> tuple[int, Any]:
        rows = {"pending_price_increases": self.rises, "truncated": self.rises_cut_short}
        return 200, {"success": True, "count": len(self.rises), **rows}

    def _user(self, _match: Any, _query: Any, _body: Any) -> tuple[int, Any]:
        return 200, {"id": 1, "credit": 12.5, "email": "x@example.com", "api_key": KEY}


_ID = r"([0-9]+)/$"
_ROUTES: list[tuple[str, str, Callable[[WireMarket, Any, Any, Any], tuple[int, Any]]]] = [
    ("GET", r"/api/v1/instances/$", WireMarket._list),
    ("GET", r"/api/v0/instances/" + _ID, WireMarket._show),
    ("POST", r"/api/v0/bundles/$", WireMarket._search),
    ("PUT", r"/api/v0/asks/" + _ID, WireMarket._create),
    ("PUT", r"/api/v0/instances/bid_price/" + _ID, WireMarket._bid),
    ("PUT", r"/api/v0/instances/(reboot|recycle)/" + _ID, WireMarket._restart),
    ("PUT", r"/api/v0/instances/" + _ID, WireMarket._manage),
    ("DELETE", r"/api/v0/instances/" + _ID, WireMarket._destroy),
    ("GET", r"/api/v0/ssh/$", WireMarket._keys),
    ("POST", r"/api/v0/ssh/$", WireMarket._add_key),
    ("DELETE", r"/api/v0/ssh/" + _ID, WireMarket._drop_key),
    ("GET", r"/api/v0/charges/$", WireMarket._charges),
    ("GET", r"/api/v0/instances/pending-price-increases/$", WireMarket._rises),
    ("GET", r"/api/v0/users/current$", WireMarket._user),
]


def _bytes(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def _matches(row: dict[str, Any], body: dict[str, Any]) -> bool:
    columns = {"reliability": "reliability2"}
    for name, test in body.items():
        if not isinstance(test, dict) or name in ("verified", "external", "rentable"):
            continue
        value = row.get(columns.get(name, name))
        for operator, wanted in test.items():
            if operator == "eq" and value != wanted:
                return False
            if operator == "gte" and not (value is not None and value >= wanted):
                return False
            if operator == "in" and value not in wanted:
                return False
            if operator == "notin" and value in wanted:
                return False
    return True
