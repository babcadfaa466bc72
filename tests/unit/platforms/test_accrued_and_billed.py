# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What accrues by our journal over a box's life is what the marketplace bills for it, on every market that it plays."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import spent
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.dollar_budgets import Budgets
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from faulty_market import ORDER, FaultyMarket
from platform_worlds import Rented, world_of

from gpu_tenant import cost
from gpu_tenant.marketplace import billing

HOUR_S = 3600.0
# Seconds between what a market does and our line of it, which tells whole seconds: docs/money.md promises no more.
OFF_S = 2.0
MARKETS = ["vast", "runpod", "lambda", "paperspace"]
RESTING = [name for name in MARKETS if name != "lambda"]


class Life:
    """A box on a market, and our clock set by the market's."""

    def __init__(self, world: Rented, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world, self.market = world, world.market
        self.acts = 0
        monkeypatch.setattr(records, "utc_now", self.now)

    def now(self) -> str:
        moment = datetime.datetime.fromtimestamp(self.market.market.clock.now(), datetime.UTC)
        return records.utc_text(moment)

    def bring(self, state: str, **order: object) -> None:
        self.acts += 1
        self.world.bring(state, budgets=Budgets("digits-run"), **order)

    def hours(self, hours: float) -> None:
        self.market.sleep(hours * HOUR_S)

    def machines(self) -> list[cost.Machine]:
        store, project = self.world.store, "digits"
        boxes = [
            {"project": project, "box": self.world.name, "generation": number, **record}
            for number in range(1, store.last_generation(project, self.world.name) + 1)
            if (record := store.read_box(project, self.world.name, number))
        ]
        return cost.machines(boxes, Journal(store).lines(), [], [], {}, self.now())

    def compare(self) -> float:
        """The dollars, once the report, a decision and the market's own bill agree on them."""
        accrued = sum(machine.accrued or 0.0 for machine in self.machines())
        assert all(machine.accrued is not None for machine in self.machines())
        lines = Journal(self.world.store).lines()
        assert spent.of_run(lines, "digits", "digits-run", self.now()) == pytest.approx(accrued)
        assert spent.of_project(lines, "digits", self.now()) == pytest.approx(accrued)
        billed = self.billed()
        dearest = max(item.rate for one in self.charges() for item in one.items if item.kind == "gpu")
        assert accrued == pytest.approx(billed, abs=self.acts * OFF_S / HOUR_S * dearest + 1e-4), self.told()
        return billed

    def charges(self) -> list[billing.Charge]:
        return self.market.market.money.charges()

    def billed(self) -> float:
        """The market's bill for computing and storing; bandwidth is not accrued."""
        return sum(item.amount for one in self.charges() for item in one.items if item.kind in ("gpu", "disk"))

    def told(self) -> str:
        return "\n".join(
            str((one.since, one.until, one.state, one.per_hour)) for m in self.machines() for one in m.intervals
        )


@pytest.fixture
def life(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Life:
    world = world_of(request.param, tmp_path)
    assert isinstance(world, Rented)
    assert isinstance(world.market, FaultyMarket)
    return Life(world, monkeypatch)


@pytest.mark.parametrize("life", MARKETS, indirect=True)
def test_from_rent_to_destroy(life: Life) -> None:
    life.bring("started")
    life.hours(2.5)
    running = life.compare()
    assert running > 0
    life.bring("absent")
    ended = life.compare()
    life.hours(5)
    assert life.compare() == pytest.approx(ended), "what is gone bills no more, and accrues no more"


@pytest.mark.parametrize("life", RESTING, indirect=True)
def test_with_a_rest_in_between(life: Life) -> None:
    life.bring("started")
    life.hours(2)
    life.bring("stopped")
    before = life.compare()
    life.hours(20)
    resting = life.compare()
    assert resting > before, "the disk of a box at rest bills"
    life.bring("started")
    life.hours(3)
    life.compare()
    life.bring("stopped")
    life.hours(1)
    life.bring("absent")
    life.hours(1)
    life.compare()


@pytest.mark.parametrize("life", ["runpod"], indirect=True)
def test_a_start_that_costs_more_than_the_rental_did(life: Life) -> None:
    life.bring("started")
    life.hours(2)
    life.bring("stopped")
    before = life.compare()
    books = life.market.market.books
    (instance,) = [one for one in books.state.instances.values() if one.live]
    assert instance.pod is not None
    books.put(replace(instance, pod=replace(instance.pod, gpu_price=9.0)))
    life.bring("started", price_cap=20.0)
    life.hours(2)
    assert life.compare() > before + 2 * 9.0
    assert [one.is_repriced for one in life.machines()[0].intervals][-2:] == [False, True]


@pytest.mark.parametrize("life", ["vast"], indirect=True)
def test_a_rise_of_the_price_that_was_accepted(life: Life) -> None:
    wanted = replace(ORDER.wanted, market="on-demand")
    life.bring("started", wanted=wanted)
    life.hours(2)
    before = life.compare()
    (row,) = life.market.rows().values()
    body = {"instance": row["id"], "compute_per_hour": row["dph_total"] * 3, "storage_per_gb_month": 30.0}
    assert life.market.request("POST", "/control/price_rise", body).status == 200
    life.bring("started", wanted=wanted, price_rises="tell")
    life.hours(1)
    life.compare()
    life.bring("started", wanted=wanted, price_rises="accept")
    life.hours(2)
    assert life.compare() > 3 * before, "from then on it bills three times as much"
    life.bring("stopped")
    at_rest = life.compare()
    life.hours(10)
    assert life.compare() == pytest.approx(at_rest + 10 * 30.0 * 20 / 720, rel=0.01)


@pytest.mark.parametrize("life", ["vast"], indirect=True)
def test_a_rise_that_was_rejected_costs_nothing(life: Life) -> None:
    wanted = replace(ORDER.wanted, market="on-demand")
    life.bring("started", wanted=wanted)
    life.hours(1)
    (row,) = life.market.rows().values()
    body = {"instance": row["id"], "compute_per_hour": 60.0}
    assert life.market.request("POST", "/control/price_rise", body).status == 200
    life.bring("started", wanted=wanted, price_rises="accept_or_reject")
    life.hours(3)
    life.compare()


@pytest.mark.parametrize("life", ["vast"], indirect=True)
def test_an_outbid_box_that_a_higher_bid_brings_back(life: Life) -> None:
    """What happened without us accrues on, rather too much; at the higher bid both go on alike."""
    wanted = replace(ORDER.wanted, market="interruptible")
    life.bring("started", wanted=wanted)
    life.hours(2)
    at_first = life.compare()
    (before,) = life.market.rows().values()
    assert life.market.request("POST", "/control/preempt", {"instance": before["id"]}).status == 200
    life.bring("started", wanted=wanted)
    (after,) = life.market.rows().values()
    assert after["dph_total"] > before["dph_total"]
    life.hours(4)
    assert life.compare() == pytest.approx(at_first + 4 * after["dph_total"], rel=0.02)
    assert life.market.request("POST", "/control/preempt", {"instance": before["id"]}).status == 200
    life.hours(1)
    [accrued] = [machine.accrued for machine in life.machines()]
    assert accrued is not None
    assert accrued > life.billed() + 0.5 * after["dph_total"]
