# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A provider's verb cannot be fenced: whoever has not the lease, or lost it, sends none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import holders
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.holders import Holder
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.lease import Ask
from ansible_collections.tenant.gpu.plugins.module_utils.leases import FileLeases
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast.actions import Account
from ansible_collections.tenant.gpu.plugins.module_utils.vast.desired import Desire, converge
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offers import Constraints
from ansible_collections.tenant.gpu.plugins.module_utils.vast.rental import Order
from wire_market import WireMarket

ORDER = Order("digits", "vast-a", "image", 20.0, Constraints(min_disk_gb=20.0, price_cap=0.5), {}, "", wait_s=300.0)


class World:
    def __init__(self, folder: Path) -> None:
        self.market = WireMarket()
        self.store = StateStore(str(folder))
        self.leases = FileLeases(self.store)
        self.market.offer(1)

    def converge(self, state: str) -> dict[str, Any]:
        return converge(Account(self.market.client(), self.store), Desire(state, ORDER, [1]), False)

    def lease_to(self, holder: Holder, over: str = "") -> str:
        return self.leases.take(Ask("digits", "vast-a", "train", str(holder.pid), holder, over=over)).lease.nonce

    def states(self) -> list[Any]:
        return [(row["id"], row["intended_status"]) for row in self.market.instances.values()]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def other() -> Iterator[Holder]:
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield holders.of_process(process.pid)
    process.kill()
    process.communicate()


def test_nothing_is_rented_for_a_box_that_another_holds(world: World, other: Holder) -> None:
    world.lease_to(other)
    with pytest.raises(TenantFailure, match=f"process {other.pid}") as refused:
        world.converge("started")
    assert refused.value.kind == "lease_held"
    assert world.states() == []
    assert world.store.last_generation("digits", "vast-a") == 0


@pytest.mark.parametrize("state", ["stopped", "absent"])
def test_no_verb_reaches_a_box_whose_lease_was_taken_away(world: World, other: Holder, state: str) -> None:
    nonce = world.lease_to(holders.myself())
    world.converge("started")
    before = world.states()
    assert len(before) == 1
    world.lease_to(other, over=nonce)
    with pytest.raises(TenantFailure, match="taken away"):
        world.converge(state)
    assert world.states() == before


def test_the_holder_rents_stops_and_destroys_and_the_journal_tells_the_rates(world: World) -> None:
    world.lease_to(holders.myself())
    for state in ("started", "stopped", "absent"):
        world.converge(state)
    assert world.states() == []
    told = [line for line in Journal(world.store).lines() if line["kind"] == "effect"]
    acts = [line for line in told if line["verb"] in ("rent", "stop", "destroy")]
    assert [line["verb"] for line in acts] == ["rent", "stop", "destroy"]
    for line in acts:
        assert line["price_per_hour"] > line["stopped_per_hour"] >= 0
