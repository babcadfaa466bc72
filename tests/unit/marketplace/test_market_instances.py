# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_tenant.marketplace import instances
from gpu_tenant.marketplace.billing import charge
from gpu_tenant.marketplace.dialects import USUAL, Dialect
from gpu_tenant.marketplace.instances import HOLDING_A_CARD, Instance, Phase, holder_of_card, wire_states

STARTING = frozenset({Phase.PROVISIONING, Phase.LOADING, Phase.REBOOTING, Phase.RECYCLING})


def fresh(number: int = 1, price: float | None = 0.2, **parts: object) -> Instance:
    instance = Instance(
        id=number,
        offer_id=1,
        machine_id=1,
        created_at=0.0,
        price=price,
        base_price=0.5 if price is None else price,
        storage_cost=0.1,
        disk_gb=10,
        image="debian",
        runtype="ssh",
        ports=(20001,),
    )
    return replace(instance, **parts)  # type: ignore[arg-type]  # replace checks the names when it runs


def running(number: int = 1, price: float | None = 0.2, now: float = 10.0) -> Instance:
    return instances.booted(instances.loading(instances.begin_start(fresh(number, price))), now)


def test_a_create_goes_from_nothing_over_loading_to_running() -> None:
    starting = instances.begin_start(fresh())
    seen = [wire_states(one, USUAL).actual for one in (starting, instances.loading(starting), running())]
    assert seen == [None, "loading", "running"]
    assert wire_states(running(), USUAL).intended == "running"


@pytest.mark.parametrize("word", ["exited", "stopped"])
@pytest.mark.parametrize("end", [instances.stop, instances.outbid])
def test_a_stopped_box_shows_stopped_thrice(end: object, word: str) -> None:
    states = wire_states(end(running(), 20.0), Dialect(stopped_as=word))  # type: ignore[operator]  # parametrize loses the type
    assert (states.intended, states.current, states.next) == ("stopped", "stopped", "stopped")
    assert states.actual == word


def test_scheduling_wants_to_run_but_does_not() -> None:
    states = wire_states(instances.scheduling(running(), 20.0), USUAL)
    assert (states.intended, states.current) == ("running", "stopped")


@pytest.mark.parametrize(("word", "shown"), [
    ("stopped", ("exited", "running", "stopped", "running")),
    ("both_stopped", ("exited", "running", "stopped", "stopped")),
    ("named", ("scheduling", "running", "running", "running")),
])  # fmt: skip
def test_scheduling_has_three_wordings(word: str, shown: tuple[str, ...]) -> None:
    states = wire_states(instances.scheduling(running(), 20.0), Dialect(scheduling=word))
    assert (states.actual, states.intended, states.current, states.next) == shown


def test_a_box_that_ended_by_itself_bills_on() -> None:
    gone = instances.exited(running(now=0.0))
    assert wire_states(gone, Dialect(stopped_as="stopped")).actual == "exited"
    assert charge(gone.account(), 3600).amount > 0.2


def test_compute_bills_from_running_to_the_stop_and_again_from_the_next_start() -> None:
    stopped = instances.stop(running(now=3600.0), 7200.0)
    again = instances.booted(instances.begin_start(stopped), 10800.0)
    assert [(part.start, part.end) for part in again.compute] == [(3600.0, 7200.0), (10800.0, None)]


def test_a_reboot_does_not_interrupt_the_bill() -> None:
    rebooted = instances.booted(instances.restart(running(now=5.0), Phase.REBOOTING), 9.0)
    assert [(part.start, part.end) for part in rebooted.compute] == [(5.0, None)]


def test_a_new_bid_bills_from_when_it_was_made() -> None:
    raised = instances.change_bid(running(price=0.2, now=0.0), 0.3, 3600.0)
    assert [(part.start, part.end, part.rate) for part in raised.compute] == [(0.0, 3600.0, 0.2), (3600.0, None, 0.3)]


def test_every_end_makes_earlier_starts_out_of_date() -> None:
    box = running()
    for ended in (instances.stop(box, 1), instances.outbid(box, 1), instances.destroy(box, 1)):
        assert ended.boot > box.boot


def test_destroying_twice_changes_nothing() -> None:
    once = instances.destroy(running(), 50.0)
    assert instances.destroy(once, 60.0) == once
    assert once.destroyed_at == 50.0
    assert once.compute[-1].end == 50.0


def test_a_market_that_stood_finds_its_boxes_stopped() -> None:
    found = instances.market_stood(running(), 99.0)
    assert found.phase is Phase.STOPPED
    assert found.compute[-1].end == 99.0
    assert not found.wants_card


def test_on_demand_beats_any_bid() -> None:
    bid, on_demand = running(1, 50.0), replace(fresh(2, None), wants_card=True)
    assert holder_of_card([bid, on_demand], 0.1) is on_demand


def test_the_highest_bid_wins_and_between_equals_the_one_that_has_the_card() -> None:
    low, high = running(1, 0.2), replace(fresh(2, 0.3), wants_card=True)
    assert holder_of_card([low, high], 0.1) is high
    assert holder_of_card([replace(fresh(0, 0.2), wants_card=True), low], 0.1) is low


def test_nobody_below_the_market_price_has_the_card() -> None:
    assert holder_of_card([running(1, 0.2)], 0.21) is None
    assert holder_of_card([running(1, 0.2)], 0.2) is not None


def test_an_outbid_box_comes_back_by_itself_and_a_stopped_one_does_not() -> None:
    assert holder_of_card([instances.outbid(running(), 1)], 0.1) is not None
    assert holder_of_card([instances.stop(running(), 1)], 0.1) is None


@given(st.lists(st.tuples(st.one_of(st.none(), st.floats(0.01, 1)), st.booleans(), st.booleans()), max_size=5))
def test_the_holder_is_a_claimant_that_nobody_beats(tenants: list[tuple[float | None, bool, bool]]) -> None:
    several = [
        replace(running(number, price) if runs else fresh(number, price), wants_card=wants)
        for number, (price, runs, wants) in enumerate(tenants)
    ]
    holder = holder_of_card(several, 0.3)
    claims = [one for one in several if one.wants_card and (one.price is None or one.price >= 0.3)]
    assert (holder is None) == (not claims)
    if holder is not None:
        assert holder in claims
        assert holder.price is None or all(one.price is not None and one.price <= holder.price for one in claims)


STEPS = st.sampled_from(["start", "boot", "stop", "outbid", "exit", "destroy", "bid"])


@given(st.lists(STEPS, max_size=30))
def test_no_history_bills_two_prices_at_once(steps: list[str]) -> None:
    box = fresh()
    for now, step in enumerate(steps, 1):
        if not box.live:
            break
        if step == "start" and box.phase not in HOLDING_A_CARD:
            box = instances.begin_start(box)
        elif step == "boot" and box.phase in STARTING:
            box = instances.booted(box, now)
        elif step == "stop":
            box = instances.stop(box, now)
        elif step == "outbid":
            box = instances.outbid(box, now)
        elif step == "exit" and box.phase is Phase.RUNNING:
            box = instances.exited(box)
        elif step == "destroy":
            box = instances.destroy(box, now)
        elif step == "bid":
            box = instances.change_bid(box, 0.1 * now, now)
        open_ends = [part for part in box.compute if part.end is None]
        assert len(open_ends) <= 1
        assert all(
            one.end is not None and one.end <= two.start for one, two in zip(box.compute, box.compute[1:], strict=False)
        )
        if box.phase in (Phase.STOPPED, Phase.OUTBID, Phase.UNLOADED):
            assert not open_ends
