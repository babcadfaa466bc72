# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``ansible-inventory --graph`` on 1,000 instances of a marketplace, of which the inventory declares 900.

The API's own time is what its 40 pages take a client that does nothing else. Each round measures both, and what
``ansible-inventory`` takes for the same hosts without the source.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness import Figure
from marketplace import let

from gpu_tenant.marketplace.testing import Handle, running_marketplace

TITLE = "The inventory of 1,000 instances"
INSTANCES, DECLARED = 1000, 900
MOST_S = 2.0
ROUNDS = 5
ROOT = Path(__file__).resolve().parents[2]


def rows() -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "market").mkdir()
        labels = [f"gt1/bench/c{place}/g1/{place:016x}" for place in range(INSTANCES)]
        state = let(folder / "market", labels)
        options = ("--machines", str(INSTANCES))
        with running_marketplace("none", state_dir=state, options=options) as market:
            return _measured(_Team(folder / "team", market), market)


def details() -> str:
    """What the figures were before, for who wonders where the time may go."""
    return (
        "The source took 1.1 s of processor time (2.18 s in all, 2.21 s by the clock) before it gave the hosts their\n"
        "values without a copy of every leaf, asked once for all hosts whether any has `host_vars`, and imported only\n"
        "what it uses.\n"
    )


def _measured(team: _Team, market: Handle) -> list[Figure]:
    rounds = [(_spent(lambda: _read_all(market)), _spent(team.graph), _spent(team.bare)) for _round in range(ROUNDS)]
    own = [whole.wall - api.wall for api, whole, _bare in rounds]
    return [
        Figure("`ansible-inventory --graph`, less the API's own time", statistics.median(own), "s", MOST_S),
        Figure("the API's own time, 40 pages", statistics.median(api.wall for api, _whole, _bare in rounds), "s"),
        Figure("processor time", statistics.median(whole.processor for _api, whole, _bare in rounds), "s"),
        Figure("the same without the source", statistics.median(bare.processor for _api, _whole, bare in rounds), "s"),
    ]


@dataclass(frozen=True)
class _Spent:
    """Seconds. Those of the processor are of programs that were started and awaited, whatever else the machine did."""

    wall: float
    processor: float


def _spent(act: Callable[[], object]) -> _Spent:
    begun, before = time.perf_counter(), os.times()
    act()
    after, ended = os.times(), time.perf_counter()
    computed = after.children_user + after.children_system - before.children_user - before.children_system
    return _Spent(ended - begun, computed)


class _Team:
    """An inventory of its own, and nothing of the user's configuration."""

    def __init__(self, folder: Path, market: Handle) -> None:
        self._folder = folder
        (folder / "group_vars").mkdir(parents=True)
        (folder / "key").write_text(market.api_key, encoding="utf-8")
        (folder / "ansible.cfg").write_text("[defaults]\n", encoding="utf-8")
        hosts = {"vast": {"hosts": {f"c{number}": {} for number in range(DECLARED)}}}
        (folder / "hosts.yml").write_text(json.dumps(hosts), encoding="utf-8")
        (folder / "profiles.yml").write_text("plugin: tenant.gpu.profiles\n", encoding="utf-8")
        variables = f"tenant_project: bench\ntenant_state_dir: {folder / 'state'}\n"
        (folder / "group_vars" / "all.yml").write_text(variables, encoding="utf-8")
        source = {"plugin": "tenant.gpu.vast", "api_url": market.url, "api_key_file": str(folder / "key")}
        (folder / "vast.yml").write_text(json.dumps(source), encoding="utf-8")

    def graph(self) -> None:
        self._graph("hosts.yml", "profiles.yml", "vast.yml")

    def bare(self) -> None:
        """The same hosts without a word from the market."""
        self._graph("hosts.yml", "profiles.yml")

    def _graph(self, *sources: str) -> None:
        words = [word for name in sources for word in ("-i", str(self._folder / name))]
        done = subprocess.run(
            [Path(sys.executable).with_name("ansible-inventory"), *words, "--graph"],
            cwd=self._folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self._folder),
                "LC_ALL": "C.UTF-8",
                "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
                "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
            },
            capture_output=True,
            text=True,
            check=True,
        )
        if done.stdout.count("--c") < DECLARED or (".g1." in done.stdout) is not ("vast.yml" in sources):
            raise RuntimeError(f"the graph is not that of {DECLARED} declared hosts: {done.stdout[:500]}")


def _read_all(market: Handle) -> None:
    """Every page, one after the other, as fast as the API gives them."""
    parts = urllib.parse.urlsplit(market.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    query, headers = {"limit": "25"}, {"Authorization": f"Bearer {market.api_key}"}
    while True:
        connection.request("GET", "/api/v1/instances/?" + urllib.parse.urlencode(query), headers=headers)
        page = json.loads(connection.getresponse().read())
        if not page["next_token"]:
            return
        query["after_token"] = page["next_token"]
