# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Bad input and a market that refuses: a clear error, and nothing rented."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.stamp import new_stamp
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast.actions import Account
from ansible_collections.tenant.gpu.plugins.module_utils.vast.api import VastClient
from ansible_collections.tenant.gpu.plugins.module_utils.vast.desired import Desire, converge
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offer_search import search
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offers import Constraints
from ansible_collections.tenant.gpu.plugins.module_utils.vast.ranking import Work
from ansible_collections.tenant.gpu.plugins.module_utils.vast.rental import Order
from ansible_collections.tenant.gpu.plugins.module_utils.vast.search_query import COLUMNS, SETTINGS, check_query
from wire_market import WireMarket

from gpu_tenant.marketplace.filters import ALIASES, VIRTUAL
from gpu_tenant.marketplace.offers import generate, offer_row

WANTED = Constraints(min_disk_gb=20.0, price_cap=0.5)
ORDER = Order("digits", "vast-a", "python:3.12", 20.0, WANTED)
GONE = (
    404,
    {"success": False, "error": "invalid_args", "msg": "error 404/3603: no_such_ask Instance type by id 1"},
    {},
)
BROKE = (400, {"success": False, "error": "missing_billing", "msg": "Your account has no credit left."}, {})


def refused(market: WireMarket, folder: Path, offers: list[int], **changes: Any) -> TenantFailure:
    """Renting fails, and neither a box nor a record of one is left."""
    store = StateStore(str(folder / "state"))
    wanted = replace(WANTED, min_disk_gb=changes.get("disk_gb", WANTED.min_disk_gb))
    order = replace(ORDER, wanted=wanted, **changes)
    with pytest.raises(TenantFailure) as caught:
        converge(Account(market.client(), store, {}), Desire("present", order, offers))
    assert not market.instances
    assert store.last_generation("digits", "vast-a") == 0
    return caught.value


def test_an_offer_that_went_after_the_search(tmp_path: Path) -> None:
    failure = refused(WireMarket(), tmp_path, [1])
    assert failure.kind == "no_offer"
    assert "none of the 1 offers is on the market any more" in failure.what
    assert "search again" in failure.fix


def test_an_offer_that_goes_with_the_create(tmp_path: Path) -> None:
    market = WireMarket()
    market.offer(1)
    market.fault("PUT", "asks", answer=GONE)
    failure = refused(market, tmp_path, [1])
    assert failure.kind == "no_offer"
    assert "offer 1" in failure.what
    assert len(market.sent("PUT", "asks")) == 1, "a create is sent once"


@pytest.mark.parametrize(
    ("disk_gb", "words"),
    [
        (9.9, "disk_gb is 9.9 GB, and the market rents no disk below 10 GB"),
        (500.0, "has 200.0 GB of disk and 500.0 GB are wanted"),
    ],
)
def test_a_disk_that_cannot_be(tmp_path: Path, disk_gb: float, words: str) -> None:
    market = WireMarket()
    market.offer(1)
    assert words in refused(market, tmp_path, [1], disk_gb=disk_gb).what
    assert not market.sent("PUT", "asks")


def test_a_search_for_a_disk_that_cannot_be() -> None:
    market = WireMarket()
    market.offer(1)
    with pytest.raises(TenantFailure, match="min_disk_gb is 5 GB, and the market rents no disk below 10 GB"):
        search(market.client(), replace(WANTED, min_disk_gb=5.0), Work(), 5)
    assert not market.requests


def test_an_empty_balance(tmp_path: Path) -> None:
    market = WireMarket()
    market.offer(1)
    market.offer(2)
    market.fault("PUT", "asks", times=9, answer=BROKE)
    failure = refused(market, tmp_path, [1, 2])
    assert "no credit left" in failure.what
    assert len(market.sent("PUT", "asks")) == 1, "no other offer cures an empty balance"


@pytest.mark.parametrize("status", [401, 404])
def test_a_wrong_key(tmp_path: Path, status: int) -> None:
    market = WireMarket()
    market.offer(1)
    answer = (status, {"success": False, "error": "auth_error", "msg": "Invalid user key"}, {})
    market.fault("GET", "instances", times=9, answer=answer)
    failure = refused(market, tmp_path, [1])
    assert failure.kind == "config"
    assert "refused the key" in failure.what
    assert not market.sent("PUT", "asks")


def test_no_key() -> None:
    with pytest.raises(TenantFailure) as caught:
        VastClient("", "http://127.0.0.1:1")
    assert caught.value.kind == "config"
    assert "key" in caught.value.what
    assert caught.value.fix


def test_the_longest_names_make_a_label_that_the_market_takes() -> None:
    assert len(str(new_stamp("p" * 63, "b" * 63, 10**9))) <= 256


@pytest.mark.parametrize(
    ("query", "what", "fix"),
    [
        ({"gpu_nam": {"eq": "RTX 4090"}}, "'gpu_nam' in query is no column", "did you mean 'gpu_name'?"),
        ({"reliabilty": {"gte": 0.9}}, "'reliabilty'", "did you mean 'reliability'?"),
        ({"inet_dwn": {"gte": 9}}, "'inet_dwn'", "did you mean 'inet_down'?"),
        ({"GPU_RAM": {"gte": 9}}, "'GPU_RAM'", "did you mean 'gpu_ram'?"),
        ({"xyzzy": {"eq": 1}}, "'xyzzy'", "there are the columns of an offer"),
        ({"gpu_ram": {"gtee": 9}}, "'gtee' in query is no operation on gpu_ram", "did you mean 'gte'?"),
    ],
)
def test_a_typo_in_the_query_is_named_with_the_nearest(query: dict[str, Any], what: str, fix: str) -> None:
    market = WireMarket()
    with pytest.raises(TenantFailure) as caught:
        search(market.client(), replace(WANTED, query=query), Work(), 5)
    assert caught.value.kind == "config"
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert not market.requests


def test_whatever_the_marketplace_can_filter_by_may_be_asked() -> None:
    row = offer_row(generate(0)[0], 1e9, 0.2, True, False, 5.0)
    filterable = {name for name, value in row.items() if not isinstance(value, dict)}
    decoration = {"logo", "webpage", "rn"}
    check_query({name: {"eq": 1} for name in (filterable | set(VIRTUAL) | set(ALIASES)) - decoration})
    check_query({"order": [["score", "desc"]], "geolocation": {"in": ["DE"]}, "verified": {}, "num_gpus": 2})
    assert not COLUMNS & SETTINGS
