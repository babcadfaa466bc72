# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The market's query language: aliases, units, lists, wildcards, and typos that are named."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offer_search import search
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offers import Constraints
from ansible_collections.tenant.gpu.plugins.module_utils.vast.query_text import filters_in
from ansible_collections.tenant.gpu.plugins.module_utils.vast.ranking import Work
from faulty_market import FaultyMarket
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "filters"),
    [
        ("", {}),
        ("num_gpus=1", {"num_gpus": {"eq": 1}}),
        ("num_gpus == 2  reliability>0.98", {"num_gpus": {"eq": 2}, "reliability": {"gt": 0.98}}),
        ("gpu_ram>=20", {"gpu_ram": {"gte": 20000.0}}),
        ("cpu_ram < 64.5 duration>3", {"cpu_ram": {"lt": 64500.0}, "duration": {"gt": 259200.0}}),
        ("gpu_ram in [24,48]", {"gpu_ram": {"in": [24000.0, 48000.0]}}),
        ("dph<=0.5 cuda_vers>=12.4", {"dph_total": {"lte": 0.5}, "cuda_max_good": {"gte": 12.4}}),
        ("gpu_name=RTX_4090", {"gpu_name": {"eq": "RTX 4090"}}),
        ('gpu_name="RTX 4090"', {"gpu_name": {"eq": "RTX 4090"}}),
        ("gpu_name in [RTX_4090,RTX_5090]", {"gpu_name": {"in": ["RTX 4090", "RTX 5090"]}}),
        ("geolocation notin [CN, VN]", {"geolocation": {"notin": ["CN", "VN"]}}),
        ("geolocation not in CN,VN", {"geolocation": {"notin": ["CN", "VN"]}}),
        ("geolocation nin [CN]", {"geolocation": {"notin": ["CN"]}}),
        ("verified=any", {"verified": None}),
        ("external = ? verified=*", {"external": None, "verified": None}),
        ("rentable=false verification != verified", {"rentable": {"eq": False}, "verification": {"neq": "verified"}}),
        ("num_gpus gte 2 num_gpus lte 4", {"num_gpus": {"gte": 2, "lte": 4}}),
        ("num_gpus=1 num_gpus=4", {"num_gpus": {"eq": 4}}),
        ("num_gpus=any num_gpus=4", {"num_gpus": {"eq": 4}}),
        ("driver_version>=535.86.05", {"driver_version": {"gte": 535086005}}),
        ("ubuntu_version=22.04", {"ubuntu_version": {"eq": "22.04"}}),
        ('{"num_gpus": {"gte": 2}}', {"num_gpus": {"gte": 2}}),
    ],
)
def test_the_language(text: str, filters: dict[str, Any]) -> None:
    assert filters_in(text) == filters


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gpu_nam=RTX_4090", "did you mean 'gpu_name'"),
        ("relibility>0.9", "did you mean 'reliability'"),
        ("num_gpus", "num_gpus has no operator"),
        ("num_gpus=", "num_gpus = has no value"),
        ("num_gpus=<2", "no operator '=<'"),
        ("num_gpus>any", "only equality takes 'any'"),
        ("gpu_ram>=many", "gpu_ram is a number"),
        (">=2", "cannot be read to its end"),
        ("{num_gpus: 2}", "no JSON"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, words: str) -> None:
    with pytest.raises(TenantFailure) as caught:
        filters_in(text)
    assert caught.value.kind == "config"
    assert words in f"{caught.value.what} {caught.value.fix}"
    assert "nothing was searched" in caught.value.safe


@given(st.text(max_size=40))
def test_no_text_is_more_than_refused(text: str) -> None:
    with contextlib.suppress(TenantFailure):
        assert isinstance(filters_in(text), dict)


def found(market: FaultyMarket, query: Any, **options: Any) -> list[dict[str, Any]]:
    wanted = Constraints.from_options({"query": query, "min_disk_gb": 20.0, **options})
    return search(market.client(), wanted, Work(), 40)


def test_a_search_by_text_finds_what_the_market_has(tmp_path: Path) -> None:
    market = FaultyMarket(tmp_path)
    several = found(market, "num_gpus>=2 gpu_ram>=20 verified=any")
    assert {offer["num_gpus"] for offer in several} >= {2, 4}
    assert min(offer["num_gpus"] for offer in several) == 2
    assert min(offer["gpu_ram"] for offer in several) >= 20_000
    assert {offer["verified"] for offer in several} == {True, False}
    named = found(market, "gpu_name in [RTX_4090,RTX_3090]", num_gpus=1)
    assert {offer["gpu_name"] for offer in named} <= {"RTX 4090", "RTX 3090"}
    assert {offer["num_gpus"] for offer in named} == {1}
    sweden = found(market, "num_gpus=any geolocation in [SE,NO] verified=any")
    assert {offer["geolocation"][-2:] for offer in sweden} <= {"SE", "NO"}
    assert found(market, "num_gpus=1 dph<0.4") == found(market, {"num_gpus": {"eq": 1}, "dph_total": {"lt": 0.4}})
