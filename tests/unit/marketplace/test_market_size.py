# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A market with a thousand instances answers a page for the price of a page. Costs are processor time, as ratios."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from every_dialect import SINGLE
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_tenant.marketplace.api import Api
from gpu_tenant.marketplace.calls import Call
from gpu_tenant.marketplace.config import MarketplaceConfig
from gpu_tenant.marketplace.dialects import USUAL, Dialect
from gpu_tenant.marketplace.engines.none import NoEngine
from gpu_tenant.marketplace.instances import Instance, Phase
from gpu_tenant.marketplace.market import Market
from gpu_tenant.marketplace.offers import generate
from gpu_tenant.marketplace.pages import after_place, compare_rows, keyset_order
from gpu_tenant.marketplace.rows import FILTERABLE, instance_row, stored_row
from gpu_tenant.marketplace.state import MarketState, StateDirectory

FEW, MANY = 50, 1000
ROUNDS = 7


def let(number: int, machine: Any, **changes: Any) -> Instance:
    values: dict[str, Any] = {
        "offer_id": machine.offer_id, "machine_id": machine.machine_id, "created_at": 5.0, "price": None,
        "base_price": machine.price, "storage_cost": machine.storage_cost, "disk_gb": 10.0, "image": "debian:12",
        "runtype": "ssh_direc ssh_proxy", "ports": (1,), "label": f"l{number % 7}",
    }  # fmt: skip
    return Instance(number, **{**values, **changes})


def market_of(folder: Path, count: int) -> Api:
    """A market of 1,000 machines, so many of them let; nothing ticks in it."""
    state = MarketState()
    for machine in generate(state.seed, count):
        number = state.take_id()
        state.instances[number] = let(number, machine)
    directory = StateDirectory(folder)
    folder.mkdir()
    directory.save(state)
    config = MarketplaceConfig(port=0, api_key="k", engine="none", state=folder, machines=MANY)
    return Api(Market(config, NoEngine(), directory), "k")


def asked(**query: str) -> Call:
    return Call("GET", "/", {}, query, {}, "", "k")


def page(api: Api, **query: str) -> dict[str, Any]:
    answer = api.list_instances(asked(**query))
    assert isinstance(answer, dict)
    return answer


def processor_s(action: Callable[[], object], times: int) -> float:
    """The least of several rounds: noise only ever adds."""
    rounds = []
    for _round in range(ROUNDS):
        begun = time.process_time()
        for _time in range(times):
            action()
        rounds.append(time.process_time() - begun)
    return min(rounds)


@pytest.fixture(scope="module")
def markets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Api, Api]:
    folder = tmp_path_factory.mktemp("markets")
    return market_of(folder / "few", FEW), market_of(folder / "many", MANY)


@pytest.mark.parametrize(
    "query",
    [{}, {"order_by": json.dumps([{"col": "label", "dir": "desc"}])}],
    ids=["plain", "ordered"],
)
def test_a_page_of_many_costs_a_few_times_a_page_of_few(markets: tuple[Api, Api], query: dict[str, str]) -> None:
    few, many = (processor_s(lambda api=api: json.dumps(page(api, limit="25", **query)), 20) for api in markets)  # type: ignore[misc]
    # Twenty times as many rows made a page cost 15 times as much when every row was built.
    assert many / few < 6


def test_showing_one_of_many_costs_what_showing_one_of_few_does(markets: tuple[Api, Api]) -> None:
    numbers = [page(api)["instances"][0]["id"] for api in markets]
    calls = [Call("GET", "/", {"id": str(number)}, {}, {}, "", "k") for number in numbers]
    few, many = (
        processor_s(lambda api=api, call=call: api.show(call), 100)  # type: ignore[misc]
        for api, call in zip(markets, calls, strict=True)
    )
    assert many / few < 3


def test_a_change_is_written_down_for_less_than_all_of_the_state(tmp_path: Path) -> None:
    state = MarketState()
    for machine in generate(0, MANY):
        number = state.take_id()
        state.instances[number] = let(number, machine)
    directory = StateDirectory(tmp_path)
    directory.save(state)
    again = processor_s(lambda: directory.save(state), 1)
    whole = processor_s(lambda: StateDirectory(tmp_path).save(state), 1)
    assert again / whole < 0.5
    assert directory.load(0).instances == state.instances


def test_pages_follow_each_other_through_all_of_them(markets: tuple[Api, Api]) -> None:
    seen: list[int] = []
    query = {"limit": "25", "order_by": json.dumps([{"col": "label", "dir": "desc"}])}
    token = None
    while True:
        answer = page(markets[1], **query, **({"after_token": token} if token else {}))
        seen += [row["id"] for row in answer["instances"]]
        token = answer["next_token"]
        if token is None:
            break
    assert len(seen) == len(set(seen)) == MANY
    assert answer["total_instances"] == MANY
    assert sum(answer["label_counts"].values()) == MANY


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("dialect", [USUAL, *SINGLE], ids=str)
def test_what_is_filtered_by_is_what_is_shown(phase: Phase, dialect: Dialect) -> None:
    machine = generate(3)[7]
    instance = let(9, machine, phase=phase, ever_ran=True)
    shown = instance_row(instance, machine, 1e9, 0.2, dialect)
    stored = stored_row(instance, machine, dialect)
    assert set(stored) == FILTERABLE
    assert stored == {name: shown[name] for name in FILTERABLE}


def test_a_change_shows_in_the_next_list(tmp_path: Path) -> None:
    api = market_of(tmp_path / "state", 3)
    number = page(api)["instances"][1]["id"]
    api.change(Call("PUT", "/", {"id": str(number)}, {}, {"label": "new"}, "", "k"))
    found = page(api, select_filters=json.dumps({"label": {"eq": "new"}}))
    assert [row["id"] for row in found["instances"]] == [number]


@given(
    st.lists(st.tuples(st.none() | st.sampled_from("ab"), st.integers(0, 3)), max_size=12),
    st.lists(st.tuples(st.sampled_from(["label", "machine_id", "id"]), st.sampled_from(["asc", "desc"])), max_size=3),
    st.integers(0, 12),
)
@settings(max_examples=60)
def test_the_place_of_a_token_is_found_in_any_order(
    columns: list[tuple[str | None, int]], order: list[tuple[str, str]], place: int
) -> None:
    rows = [{"id": number, "label": label, "machine_id": machine} for number, (label, machine) in enumerate(columns)]
    ordered = keyset_order(rows, order)
    assert all(compare_rows(one, other, order) < 0 for one, other in itertools.pairwise(ordered))
    if place < len(ordered):
        assert after_place(ordered, ordered[place], order) == place + 1
