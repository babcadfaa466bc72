# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Offers: what is asked of the market, what fits, and why nothing was found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offer_search import search
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offers import (
    Constraints,
    bid_within,
    reread,
    search_body,
    to_offer,
)
from ansible_collections.tenant.gpu.plugins.module_utils.vast.ranking import Work, ranked
from hypothesis import given
from hypothesis import strategies as st
from wire_market import WireMarket

WANTED = Constraints(gpu_name="RTX 4090", min_disk_gb=20.0, price_cap=0.5)
MONEY = st.floats(0.01, 5.0)


def offer(offer_id: int = 1, **changes: Any) -> Any:
    return to_offer(WireMarket().offer(offer_id, **changes))


@given(MONEY, st.floats(0, 1), st.floats(0.01, 6), st.none() | MONEY)
def test_a_bid_never_passes_the_cap(min_bid: float, storage: float, cap: float, own: float | None) -> None:
    wanted = replace(WANTED, price_cap=cap, bid=own)
    assert bid_within(min_bid, storage, wanted) + storage <= cap + 1e-6


def test_the_search_asks_the_server_for_what_matters() -> None:
    body = search_body(
        replace(
            WANTED, min_gpu_ram_gb=24, min_cuda=12.4, min_reliability=0.98, direct_ports=2, exclude_machines=(9, 4)
        ),
        64,
    )
    assert body["gpu_ram"] == {"gte": 24000.0}
    assert body["machine_id"] == {"notin": [4, 9]}
    assert body["type"] == "bid"
    assert body["allocated_storage"] == 20.0
    assert body["verified"] == {"eq": True}
    assert search_body(replace(WANTED, market="on-demand", query={"verified": {}}), 5)["verified"] == {}
    assert search_body(replace(WANTED, market="on-demand"), 5)["type"] == "on-demand"


def test_underscores_and_case_do_not_hide_a_gpu() -> None:
    assert ranked([offer()], replace(WANTED, gpu_name="rtx_4090"), Work())


def test_what_the_host_does_not_say_does_not_pass_a_constraint() -> None:
    assert not ranked([offer(reliability2=None)], replace(WANTED, min_reliability=0.5), Work())
    assert not ranked([offer(storage_cost=None)], WANTED, Work())
    assert not ranked([offer(gpu_ram=None)], replace(WANTED, min_gpu_ram_gb=1), Work())


def test_nothing_found_says_what_excludes_how_many_and_the_price_that_would_do() -> None:
    market = WireMarket()
    market.offer(1, min_bid=0.9)
    market.offer(2, min_bid=0.8)
    market.offer(3, reliability2=0.5)
    wanted = replace(WANTED, min_reliability=0.9)
    with pytest.raises(TenantFailure) as caught:
        search(market.client(), wanted, Work(), 10)
    failure = caught.value
    assert failure.kind == "no_offer"
    assert "none of 3 offers" in failure.what
    assert "price_cap 0.5 excludes 2" in failure.what
    assert "min_reliability 0.9 excludes 1" in failure.what
    assert "0.8050" in failure.fix
    assert failure.safe == "nothing was rented"


def test_an_unknown_gpu_is_told_from_a_dear_one() -> None:
    market = WireMarket()
    market.offer(1)
    with pytest.raises(TenantFailure, match="no offer at all of 1 x RTX 9999"):
        search(market.client(), replace(WANTED, gpu_name="RTX 9999"), Work(), 10)


def test_listed_offers_are_read_again_in_their_order() -> None:
    market = WireMarket()
    market.offer(1)
    market.offer(2, min_bid=0.44)
    found = reread(market.client(), [{"id": 2, "min_bid": 0.1}, 3, "1", 2], WANTED)
    assert [(one.offer_id, one.min_bid) for one in found] == [(2, 0.44), (1, 0.2)]
    for bad in ({"id": None}, "x", True, -1):
        with pytest.raises(TenantFailure, match="neither"):
            reread(market.client(), [bad], WANTED)


@pytest.mark.parametrize("name", ["num_gpus", "min_disk_gb", "price_cap", "bid"])
def test_numbers_that_make_no_sense_are_named(name: str) -> None:
    with pytest.raises(TenantFailure, match=name):
        Constraints.from_options({name: -1})
