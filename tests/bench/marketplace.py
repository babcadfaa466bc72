# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The marketplace with 1,000 instances: milliseconds a request, over HTTP, one client on one connection.

The server is a process of its own with engine none, held to one core; the client has another where there is one. What
one core can answer in a second is what the server's processor time says; what a client waits also has its own reading
of the answer, and whatever else the machine does.
``MARKETPLACE_INSTANCES`` takes another number.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import statistics
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness import Figure

from gpu_tenant.marketplace.instances import Instance
from gpu_tenant.marketplace.offers import generate
from gpu_tenant.marketplace.state import MarketState, StateDirectory
from gpu_tenant.marketplace.testing import Handle, running_marketplace

TITLE = "Marketplace with 1,000 instances, one core"
MOST_MS = 1000 / 200
ROUNDS = 3
REQUESTS = 100
CREATED = 20
_SEARCH = {
    "verified": {"eq": True},
    "external": {"eq": False},
    "rentable": {"eq": False},
    "gpu_name": {"eq": "RTX 4090"},
    "order": [["dph_total", "asc"]],
    "type": "bid",
    "allocated_storage": 20.0,
}


def rows() -> list[Figure]:
    count = int(os.environ.get("MARKETPLACE_INSTANCES", "1000"))
    options = ("--machines", str(count + CREATED), "--boot-s", "0")
    with (
        tempfile.TemporaryDirectory() as folder,
        running_marketplace("none", state_dir=let(Path(folder), ["bench"] * count), options=options) as market,
    ):
        cores = sorted(os.sched_getaffinity(0))
        _pin(market.process.pid, cores[0])
        os.sched_setaffinity(0, {cores[-1]})
        try:
            return _measured(_Connection(market), market.process.pid)
        finally:
            os.sched_setaffinity(0, cores)


def _pin(process_id: int, core: int) -> None:
    for thread in os.listdir(f"/proc/{process_id}/task"):
        os.sched_setaffinity(int(thread), {core})


def let(folder: Path, labels: Sequence[str]) -> Path:
    """The state of a market that has let a stopped box of each label, one on each machine."""
    state = MarketState()
    # The smallest market has some machines more.
    for label, machine in zip(labels, generate(state.seed, len(labels)), strict=False):
        number = state.take_id()
        state.instances[number] = Instance(
            id=number,
            offer_id=machine.offer_id,
            machine_id=machine.machine_id,
            created_at=0.0,
            price=None,
            base_price=machine.price,
            storage_cost=machine.storage_cost,
            disk_gb=10.0,
            image="debian:12",
            runtype="ssh_direc ssh_proxy",
            ports=(1,),
            label=label,
        )
    folder.mkdir(parents=True, exist_ok=True)
    StateDirectory(folder).save(state)
    return folder


def _measured(client: _Connection, server: int) -> list[Figure]:
    free = client.ask("POST", "/api/v0/bundles/", {"rentable": {"eq": True}, "limit": CREATED})["offers"]
    ids = [row["id"] for row in client.ask("GET", "/api/v1/instances/?limit=25")["instances"]]
    begun = time.perf_counter()
    rented = [client.rent(offer["id"]) for offer in free]
    created = Figure("create", 1000 * (time.perf_counter() - begun) / len(rented), "ms")
    numbers, turns = itertools.cycle(ids), itertools.count()
    last = client.ask("GET", "/api/v1/instances/?limit=25")["next_token"]
    second = f"/api/v1/instances/?limit=25&after_token={urllib.parse.quote(last)}"
    actions: list[tuple[str, Callable[[], Any]]] = [
        ("list, the first page of 25", lambda: client.ask("GET", "/api/v1/instances/?limit=25")),
        ("list, the next page", lambda: client.ask("GET", second)),
        ("show one", lambda: client.ask("GET", f"/api/v0/instances/{next(numbers)}/")),
        ("search by five filters, ordered", lambda: client.ask("POST", "/api/v0/bundles/", _SEARCH)),
        ("label one", lambda: client.ask("PUT", f"/api/v0/instances/{next(numbers)}/", {"label": f"l{next(turns)}"})),
    ]
    figures = []
    for name, action in actions:
        waited, worked = _milliseconds(action, server)
        figures.append(Figure(f"{name}: the server's processor time", worked, "ms", MOST_MS))
        figures.append(Figure(f"{name}: what a client waits", waited, "ms"))
    return [*figures, created]


def _milliseconds(action: Callable[[], Any], server: int) -> tuple[float, float]:
    """What the client waits and what the server works: the medians of the rounds' means, one round not counted."""
    waited, worked = [], []
    for _round in range(ROUNDS + 1):
        begun, used = time.perf_counter(), _processor_s(server)
        for _request in range(REQUESTS):
            action()
        waited.append(1000 * (time.perf_counter() - begun) / REQUESTS)
        worked.append(1000 * (_processor_s(server) - used) / REQUESTS)
    return statistics.median(waited[1:]), statistics.median(worked[1:])


def _processor_s(process_id: int) -> float:
    """User and system time of a process and its threads so far."""
    fields = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class _Connection:
    """One connection to the market, kept open; every answer must be 200."""

    def __init__(self, market: Handle) -> None:
        self._headers = {"Authorization": f"Bearer {market.api_key}", "Content-Type": "application/json"}
        self._http = http.client.HTTPConnection(urllib.parse.urlsplit(market.url).netloc, timeout=60)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        self._http.request(method, path, None if body is None else json.dumps(body), self._headers)
        answer = self._http.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:200]!r}")
        return json.loads(text)

    def rent(self, offer_id: int) -> int:
        body = {"client_id": "me", "image": "debian:12", "disk": 10, "runtype": "ssh_direc ssh_proxy", "label": "bench"}
        return int(self.ask("PUT", f"/api/v0/asks/{offer_id}/", body)["new_contract"])
