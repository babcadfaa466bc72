# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Prices that move by themselves: by seed, within bounds, and with what they do to who bids too little."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from faulty_market import ORDER, FaultyMarket
from hypothesis import given
from hypothesis import strategies as st

from gpu_tenant.marketplace.moving_bids import STEP_S, bid_at
from gpu_tenant.marketplace.offers import generate

HOUR_S = 3600.0
MACHINES = generate(0)


@given(st.sampled_from(MACHINES), st.integers(0, 5), st.floats(0, 2e9), st.floats(0.01, 0.9))
def test_a_bid_stays_within_its_share_and_below_the_price_on_demand(
    machine: object, seed: int, now: float, share: float
) -> None:
    found = bid_at(machine, seed, now, share)  # type: ignore[arg-type]
    least, price = machine.min_bid, machine.price  # type: ignore[attr-defined]
    assert 0 < found <= price + 1e-4
    assert least * (1 - share) - 1e-4 <= found <= least * (1 + share) + 1e-4


def test_the_seed_and_the_time_decide_and_nothing_else() -> None:
    machine = MACHINES[0]
    day = [bid_at(machine, 1, step * STEP_S, 0.3) for step in range(288)]
    assert day == [bid_at(machine, 1, step * STEP_S + STEP_S - 1, 0.3) for step in range(288)]
    assert day != [bid_at(machine, 2, step * STEP_S, 0.3) for step in range(288)]
    assert max(day) > machine.min_bid * 1.1
    assert min(day) < machine.min_bid * 0.9


def test_by_default_prices_stand_still(tmp_path: Path) -> None:
    market = FaultyMarket(tmp_path)
    before = [row["min_bid"] for row in market.market.listing.offer_rows(True, 20.0)]
    market.sleep(12 * HOUR_S)
    assert before == [row["min_bid"] for row in market.market.listing.offer_rows(True, 20.0)]


def test_a_low_bid_loses_and_comes_back_and_the_search_shows_the_same_price(tmp_path: Path) -> None:
    market = FaultyMarket(tmp_path, seed=1, moving_bids=0.4, forgetful=True)
    market.sleep(1.0)
    wanted = replace(ORDER.wanted, bid_margin=0.02)
    box = market.converge("started", offers=1, wanted=wanted)["instance"]
    number = int(box["provider_id"])
    seen = []
    for _step in range(24 * 12):
        market.sleep(STEP_S)
        row = market.rows()[number]
        runs = row["cur_state"] == "running"
        assert runs == (box["bid"] >= row["min_bid"] - 1e-9), "who bids enough has the card, who does not has none"
        if not seen or seen[-1] != runs:
            seen.append(runs)
    assert seen[:3] == [True, False, True]
    (offer,) = [one for one in market.market.listing.offer_rows(True, 20.0) if one["machine_id"] == row["machine_id"]]
    assert offer["min_bid"] == row["min_bid"]
    assert market.rows()[number]["dph_base"] == pytest.approx(box["bid"]), "it pays its bid, whatever others would"
