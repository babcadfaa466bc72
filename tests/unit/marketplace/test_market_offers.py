# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_tenant.marketplace.offers import Machine, generate, offer_row

SEEDS = st.integers(0, 2**32)


def single_4090(seed: int) -> list[Machine]:
    return sorted(
        (one for one in generate(seed) if one.model.name == "RTX 4090" and one.num_gpus == 1),
        key=lambda one: one.min_bid,
    )


@given(SEEDS)
def test_a_seed_always_draws_the_same_market(seed: int) -> None:
    assert generate(seed) == generate(seed)


def test_seeds_draw_different_markets() -> None:
    assert generate(1) != generate(2)


@given(SEEDS)
def test_ids_are_unique(seed: int) -> None:
    machines = generate(seed)
    assert len({one.offer_id for one in machines}) == len(machines)
    assert len({one.machine_id for one in machines}) == len(machines)


@given(SEEDS)
def test_the_cheapest_4090_to_bid_for_lies_about_its_memory_and_the_next_ones_do_not(seed: int) -> None:
    liar, *honest = single_4090(seed)
    assert liar.model.memory_mb == 24564
    assert liar.card.memory_mb == 16380
    assert len(honest) >= 4
    assert all(one.card.memory_mb == one.model.memory_mb for one in honest)


@given(SEEDS)
def test_the_liar_is_what_a_careful_tenant_would_take_first(seed: int) -> None:
    liar = single_4090(seed)[0]
    assert liar.verification == "verified"
    assert liar.reliability > 0.99
    assert liar.cuda >= 12.4
    assert liar.direct_ports >= 20
    assert liar.price == min(one.price for one in single_4090(seed))


@given(SEEDS)
def test_bidding_is_cheaper_than_on_demand(seed: int) -> None:
    assert all(0 < one.min_bid < one.price for one in generate(seed))


@pytest.mark.parametrize("interruptible", [False, True])
def test_the_price_of_a_row_is_the_sum_of_its_parts(interruptible: bool) -> None:
    machine = generate(0)[3]
    row = offer_row(machine, 1e9, machine.min_bid, True, interruptible, 30.0)
    base = machine.min_bid if interruptible else machine.price
    assert row["dph_base"] == base
    assert row["dph_total"] == pytest.approx(base + machine.storage_cost * 30.0 / 720)
    assert row["search"]["totalHour"] == row["dph_total"]
    assert row["is_bid"] is interruptible


def test_a_row_is_json_and_has_the_columns_that_the_official_client_prints() -> None:
    row = offer_row(generate(0)[0], 1e9, 0.2, True, False, 5.0)
    columns = [
        "id",
        "cuda_max_good",
        "num_gpus",
        "gpu_name",
        "pcie_bw",
        "cpu_ghz",
        "cpu_cores_effective",
        "cpu_ram",
        "gpu_ram",
        "disk_space",
        "dph_total",
        "dlperf",
        "dlperf_per_dphtotal",
        "score",
        "driver_version",
        "inet_up",
        "inet_down",
        "reliability",
        "duration",
        "machine_id",
        "verification",
        "host_id",
        "direct_port_count",
        "geolocation",
    ]
    assert json.loads(json.dumps(row)) == row
    assert all(row[column] is not None for column in columns)
