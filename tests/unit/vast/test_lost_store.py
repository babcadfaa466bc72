# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A state store that was lost: no machine gets the number of an earlier one, and what is found costs money again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import generations
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import UnsafeName
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast.actions import Account
from ansible_collections.tenant.gpu.plugins.module_utils.vast.desired import Desire, converge
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offers import Constraints
from ansible_collections.tenant.gpu.plugins.module_utils.vast.rental import Order
from wire_market import WireMarket

from gpu_tenant import cost

ORDER = Order("digits", "vast-a", "image", 20.0, Constraints(min_disk_gb=20.0, price_cap=0.5), {}, "", wait_s=300.0)


class World:
    def __init__(self, folder: Path) -> None:
        self.market, self.results = WireMarket(), folder / "results"
        self.store = StateStore(str(folder / "empty"))
        self.market.offer(9, machine_id=9)

    def account(self) -> Account:
        return Account(self.market.client(), self.store, results_dir=str(self.results))

    def started(self, check: bool = False, **order: Any) -> dict[str, Any]:
        return converge(self.account(), Desire("started", replace(ORDER, **order), [9]), check)

    def add(self, generation: int, **row: Any) -> int:
        return int(self.market.add(f"gt1/digits/vast-a/g{generation}/0123456789abcdef", **row)["id"])

    def found(self) -> list[dict[str, Any]]:
        return [line for line in Journal(self.store).lines() if line.get("found") is True]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_what_came_home_tells_the_generations_of_machines_that_are_gone(tmp_path: Path) -> None:
    for place in ("r1/vast-a/g2", "r2/vast-a/g11", "r2/vast-a/g12.old", "r2/vast-a/g07", "r2/vast-ab/g40", "r2/g50"):
        (tmp_path / "digits" / place).mkdir(parents=True)
    (tmp_path / "other/r1/vast-a/g60").mkdir(parents=True)
    assert generations.at_home(str(tmp_path), "digits", "vast-a") == 11
    assert generations.at_home(str(tmp_path), "digits", "vast-b") == 0
    for nowhere in ("", None, str(tmp_path / "nowhere")):
        assert generations.at_home(nowhere, "digits", "vast-a") == 0
    with pytest.raises(UnsafeName):
        generations.at_home(str(tmp_path), "..", "vast-a")


@pytest.mark.parametrize("folder", ["results", "[a-z]*?"])
def test_a_box_is_not_rented_under_a_number_whose_results_lie_at_home(world: World, folder: str) -> None:
    world.results = world.results.parent / folder
    (world.results / "digits/nightly/vast-a/g3").mkdir(parents=True)
    predicted = world.started(check=True)
    assert predicted["diff"]["after"]["generation"] == 4
    assert not Path(world.store.root).exists()
    assert world.started()["generation"] == 4
    assert [stamp.split("/")[3] for stamp in world.market.stamps()] == ["g4"]
    assert world.store.last_generation("digits", "vast-a") == 4


@pytest.mark.parametrize("resting", [False, True])
def test_nor_under_one_that_a_machine_of_the_provider_s_has(world: World, resting: bool) -> None:
    state = dict.fromkeys(("actual_status", "intended_status", "cur_state"), "stopped") if resting else {}
    world.add(2)
    lost = world.add(5, **state)
    made = world.started(replaces=str(lost))
    assert made["generation"] == 6
    assert sorted(stamp.split("/")[3] for stamp in world.market.stamps()) == ["g2", "g5", "g6"]


def test_what_is_found_costs_from_when_it_began_to_run(world: World) -> None:
    ten_hours = world.market.epoch() - 36000
    running = world.add(1, start_date=ten_hours, uptime_mins=600.0, dph_total=0.3)
    account = world.account()
    for _look in range(2):
        account.locate("digits", "vast-a")
    [line] = world.found()
    assert (line["verb"], line["provider_id"], line["price_per_hour"]) == ("seen-started", str(running), 0.3)
    record = world.store.read_box("digits", "vast-a", 1)
    assert record is not None
    [machine] = cost.machines([record], Journal(world.store).lines(), [], [], {}, records.utc_now())
    assert machine.state == "running"
    assert machine.accrued == pytest.approx(3.0, rel=0.02)


def test_what_rests_costs_its_disk_from_now_on_and_what_it_cost_before_is_the_bill_s(world: World) -> None:
    stopped = dict.fromkeys(("actual_status", "intended_status", "cur_state"), "stopped")
    world.add(1, start_date=world.market.epoch() - 36000, **stopped)
    world.account().locate("digits", "vast-a")
    [line] = world.found()
    assert line["verb"] == "seen-stopped"
    assert "effective_at" not in line
    assert line["stopped_per_hour"] > 0


def test_in_check_mode_nothing_is_written_of_it(world: World) -> None:
    world.add(1)
    world.started(check=True)
    assert not Path(world.store.root).exists()


def test_a_box_that_is_on_record_is_not_found_a_second_time(world: World) -> None:
    world.started()
    world.account().locate("digits", "vast-a")
    assert world.found() == []
