# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Sixteen processes that rent at once, each for a box of its own, from one list of offers."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast.actions import Account
from ansible_collections.tenant.gpu.plugins.module_utils.vast.api import VastClient
from ansible_collections.tenant.gpu.plugins.module_utils.vast.desired import Desire, converge
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offers import Constraints
from ansible_collections.tenant.gpu.plugins.module_utils.vast.rental import Order

from gpu_tenant.marketplace.testing import Handle, running_marketplace

pytestmark = pytest.mark.integration
FORKS = 16
DISK_GB = 10.0
DEADLINE_S = 600


@pytest.fixture(scope="module")
def market() -> Iterator[Handle]:
    with running_marketplace("none", options=("--boot-s", "0", "--machines", "40")) as started:
        yield started


def offers(market: Handle) -> list[dict[str, Any]]:
    """Everything that is free, the cheapest first."""
    body = {"type": "bid", "order": [["dph_total", "asc"]], "rentable": {"eq": True}, "allocated_storage": DISK_GB}
    found: list[dict[str, Any]] = market.request("POST", "/api/v0/bundles/", body)["offers"]
    return found


def rent(market: Handle, state: Path, desire: Desire, begin: Barrier, said: Any) -> None:
    """One fork; what came of it goes into the queue."""
    account = Account(VastClient(market.api_key, market.url), StateStore(str(state)))
    begin.wait(DEADLINE_S)
    try:
        said.put(("rented", converge(account, desire)["stamp"]))
    except TenantFailure as failure:
        said.put((failure.kind, failure.what))


def at_once(market: Handle, state: Path, project: str, budget: float | None) -> list[tuple[str, str]]:
    fork = multiprocessing.get_context("fork")
    begin, said = fork.Barrier(FORKS), fork.Queue()
    wanted, ids = Constraints(min_disk_gb=DISK_GB, price_cap=50.0), [int(row["id"]) for row in offers(market)]
    orders = [
        Order(project, f"box-{number}", "debian:12", DISK_GB, wanted, wait_s=600.0, budget_per_hour=budget)
        for number in range(FORKS)
    ]
    forks = [
        fork.Process(target=rent, args=(market, state, Desire("present", order, ids), begin, said)) for order in orders
    ]
    for one in forks:
        one.start()
    answers = [said.get(timeout=DEADLINE_S) for _fork in forks]
    for one in forks:
        one.join(DEADLINE_S)
    return answers


def rented(market: Handle, project: str) -> list[dict[str, Any]]:
    return [one for one in market.state()["instances"] if f"/{project}/" in (one["label"] or "")]


def test_sixteen_forks_pick_sixteen_offers(market: Handle, tmp_path: Path) -> None:
    answers = at_once(market, tmp_path, "many", None)
    boxes = rented(market, "many")
    assert [kind for kind, _what in answers] == ["rented"] * FORKS
    assert sorted(stamp for _kind, stamp in answers) == sorted(one["label"] for one in boxes)
    assert len({one["offer_id"] for one in boxes}) == len({one["machine_id"] for one in boxes}) == FORKS
    assert {one["phase"] for one in boxes} == {"running"}
    for one in boxes:
        market.request("DELETE", f"/api/v0/instances/{one['id']}/", {})
        market.wait_for(one["id"], lambda row: row is None)


def test_sixteen_forks_stay_within_one_budget(market: Handle, tmp_path: Path) -> None:
    prices = sorted(row["dph_total"] for row in offers(market))
    budget = 1.1 * sum(prices[:8]) + 0.0001
    answers = at_once(market, tmp_path, "thrifty", budget)
    boxes = rented(market, "thrifty")
    spent = sum(market.row(one["id"])["dph_total"] for one in boxes)  # type: ignore[index]
    assert spent <= budget
    assert 0 < len(boxes) < FORKS
    assert sorted(kind for kind, _what in answers) == ["budget"] * (FORKS - len(boxes)) + ["rented"] * len(boxes)
    assert all(f"budget_per_hour of ${budget}" in what for kind, what in answers if kind == "budget")
