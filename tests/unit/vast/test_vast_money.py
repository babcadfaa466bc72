# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How long the money lasts: every instance counts, and what nobody tells is unknown, never 0."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.vast import money
from ansible_collections.tenant.gpu.plugins.module_utils.vast.money import Rate, account_info, hours, total
from hypothesis import given
from hypothesis import strategies as st
from wire_market import WireMarket

STAMP = "gt1/p/a/g1/0123456789abcdef"
STOPPED = {"actual_status": "exited", "intended_status": "stopped", "cur_state": "stopped", "min_bid": 0.1}


class World:
    def __init__(self) -> None:
        self.market = WireMarket()
        self.user: dict[str, Any] = {"id": 1, "credit": 10.0, "balance": 0.0}
        self.volumes: list[dict[str, Any]] = []
        serve = self.market._serve

        def served(method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
            if path.startswith("/api/v0/volumes"):
                return 200, {"volumes": self.volumes}
            return (200, self.user) if path.endswith("/users/current") else serve(method, path, query, body)

        self.market._serve = served  # type: ignore[method-assign]  # money and volumes stand before the market

    def info(self) -> dict[str, Any]:
        return account_info(self.market.client())


@pytest.fixture
def world() -> World:
    return World()


def test_what_runs_and_what_rests_adds_up(world: World) -> None:
    world.market.add(STAMP, dph_total=0.4)
    world.market.add("gt1/q/b/g1/0123456789abcdef", storage_cost=0.36, disk_space=20.0, **STOPPED)
    world.market.add("somebody's own", dph_total=0.5, is_bid=False)
    world.volumes = [{"id": 9, "storage_total_cost": 0.09, "instances": []}]
    found = world.info()
    assert found["burn_per_hour"] == pytest.approx(0.4 + 0.01 + 0.5 + 0.09)
    assert found["hours_left"] == found["hours_left_at_least"] == pytest.approx(10.0)
    assert found["unknown"] == []
    assert (found["instances"], found["unstamped"], found["volumes"]) == (3, 1, 1)
    assert [share["of"] for share in found["burn"]] == ["unstamped instances", "project p", "volumes", "project q"]


def test_the_clocks_come_by_urgency(world: World) -> None:
    world.market.add(STAMP, end_date=world.market.epoch() + 7200)
    world.market.add("gt1/q/b/g1/0123456789abcdef", end_date=None, **STOPPED)
    world.user["credit"] = 100.0
    found = world.info()["clocks"]
    assert [clock["effect"] for clock in found] == [money.DISK_BILLS, money.RENTAL_ENDS, money.UNPAID]
    assert found[0]["of"].startswith("b (instance ")
    assert found[0]["left"] == "now"
    assert 7100 < found[1]["left_s"] <= 7200
    assert found[1]["at"]


@pytest.mark.parametrize(
    ("row", "said"),
    [({"dph_total": None}, "does not say its price"), ({"actual_status": "offline"}, "whether it bills compute")],
)
def test_a_rate_that_nobody_tells_is_unknown(world: World, row: dict[str, Any], said: str) -> None:
    world.market.add(STAMP, dph_total=0.4)
    world.market.add("gt1/p/b/g1/0123456789abcdef", **row)
    found = world.info()
    assert found["burn_per_hour"] is None
    assert found["hours_left"] is None
    assert found["burn_at_least"] >= 0.4
    assert found["hours_left_at_most"] <= 25.0
    assert said in found["unknown"][0]
    unpaid = next(clock for clock in found["clocks"] if clock["effect"] == money.UNPAID)
    assert (unpaid["left_s"], unpaid["left"]) == (None, "unknown")


@pytest.mark.parametrize("credit", [None, "10", float("nan"), True])
def test_a_credit_that_nobody_tells_is_unknown(world: World, credit: Any) -> None:
    world.user["credit"] = credit
    world.market.add(STAMP)
    found = world.info()
    assert (found["credit"], found["hours_left"]) == (None, None)
    assert "what credit is left" in found["unknown"][0]


def test_nothing_left_is_now_and_nothing_rented_lasts_for_ever(world: World) -> None:
    assert world.info()["hours_left"] is None
    assert world.info()["clocks"] == []
    world.market.add(STAMP, end_date=None)
    world.user["credit"] = -2.0
    found = world.info()
    assert found["hours_left"] == 0.0
    assert (found["clocks"][0]["effect"], found["clocks"][0]["left"]) == (money.UNPAID, "now")


def test_a_partial_list_is_no_burn_rate(world: World) -> None:
    world.market.add(STAMP)
    world.market.fault("GET", "/api/v1/instances/", times=99, rewrite=lambda body: {**body, "total_instances": 5})
    with pytest.raises(Exception, match="partial"):
        world.info()


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5) | st.none())), st.floats(0, 1000) | st.none())
def test_what_is_certain_lies_between_the_bounds(pairs: list[tuple[float, float | None]], credit: float | None) -> None:
    rates = [Rate(least, None if most is None else least + most) for least, most in pairs]
    burn = total(rates)
    if burn.at_most is not None:
        assert burn.at_least <= burn.at_most
    soon, late = hours(credit, burn.at_most), hours(credit, burn.at_least)
    if soon is not None and late is not None:
        assert soon <= late
    if burn.certain is not None:
        assert hours(credit, burn.certain) == soon == late
