# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The table of decisions. Each row is a verdict on a rented box, what was tried for it, and the one next action."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_tenant import decide, verdicts
from gpu_tenant.decide import Costs, Limits, Money, Situation, Tried
from gpu_tenant.verdicts import Verdict


def of(name: str, **more: object) -> Situation:
    needs_push = bool(more.pop("needs_push", False))
    return Situation(Verdict(name, f"it is {name}", needs_push=needs_push), **more)  # type: ignore[arg-type]  # table


FULL = Money(spent=0.9, budget=1.0, reserve=0.5)
SPENT = Money(spent=1.0, budget=1.0)
STARTED = Tried(restart=2)
ONCE = Tried(1, 1, 0, 1, 0)
VOLUME = {"bound": True, "replaceable": True}
ALL_TRIED = Tried(9, 9, 9, 9, 9)
# Of what has ended, and is not home.
FAILING = {"money": SPENT, "computes": True}
HARVESTED = ((verdicts.FINISHED, decide.HARVEST), (verdicts.FAILED, decide.HARVEST_FAILED))
# Of a machine that its provider shows at work, or that comes back there by itself.
COMPUTING = (
    verdicts.RUNNING, verdicts.ALERT, verdicts.STALLED, verdicts.STARTING, verdicts.BARE, verdicts.NO_PYTHON,
    verdicts.ZERO_GPU, verdicts.LOADING_STUCK, verdicts.SCHEDULING_STUCK, verdicts.EXITED, verdicts.OUTBID,
    verdicts.HOST_OFFLINE, verdicts.UNREACHABLE,
)  # fmt: skip


def dear(**costs: float | None) -> Money:
    """Each rung may cost a quarter dollar, and some have."""
    return Money(spent=0.3, budget=1.0, reserve=0.1, per_rung=0.25, rungs=Costs(**costs))


TABLE = [
    # first start
    ("nothing rented yet", of(verdicts.NOT_RENTED), decide.RENT),
    ("no room for the first", of(verdicts.NOT_RENTED, money=FULL), decide.GIVE_UP),
    ("already loading", of(verdicts.STARTING), decide.START),
    ("nothing deployed", of(verdicts.BARE), decide.START),
    ("no Python at the first look", of(verdicts.NO_PYTHON), decide.RESTART),
    ("stopped from an earlier day", of(verdicts.STOPPED), decide.RESTART),
    # work
    ("trains", of(verdicts.RUNNING), decide.WAIT),
    ("a pull is due", of(verdicts.RUNNING, pull_due=True), decide.PULL),
    ("hot, and a pull is due", of(verdicts.ALERT, pull_due=True), decide.PULL),
    ("no sign of work", of(verdicts.STALLED), decide.WAIT),
    ("its budget is spent", of(verdicts.RUNNING, money=SPENT), decide.PARK),
    ("spent, and nothing stops it", of(verdicts.RUNNING, money=SPENT, bills_on=True), decide.BILLS_ON),
    ("the same, a pull is due", of(verdicts.RUNNING, money=SPENT, bills_on=True, pull_due=True), decide.PULL),
    ("done", of(verdicts.FINISHED), decide.HARVEST),
    ("done over its budget", of(verdicts.FINISHED, money=SPENT), decide.HARVEST),
    ("failed", of(verdicts.FAILED), decide.HARVEST_FAILED),
    ("failed, what it left is home", of(verdicts.STOPPED, failed_home=True), decide.GIVE_UP),
    ("the same over its budget", of(verdicts.FAILED, failed_home=True, money=SPENT, computes=True), decide.PARK),
    ("the same, nothing stops it", of(verdicts.FAILED, failed_home=True, money=SPENT, computes=True, bills_on=True),
     decide.GIVE_UP),
    ("failed, people look at it", of(verdicts.FAILED, failed_home=True, computes=True), decide.GIVE_UP),
    ("home", of(verdicts.FINISHED, home=True), decide.FINISH),
    ("home, its meter runs on", of(verdicts.FINISHED, home=True, left_running=True), decide.HARVEST),
    ("home, its successor computes on", of(verdicts.FINISHED, home=True, outlived=True), decide.PARK),
    ("the same, in an outage", of(verdicts.FINISHED, home=True, outlived=True, outage="all silent"), decide.FINISH),
    ("home, in an outage", of(verdicts.FINISHED, home=True, left_running=True, outage="all silent"), decide.FINISH),
    ("home, a replaced box overdue", of(verdicts.FINISHED, home=True, settle_due=True), decide.SETTLE),
    ("a replaced box overdue", of(verdicts.RUNNING, settle_due=True), decide.SETTLE),
    ("a replaced box", of(verdicts.SUPERSEDED), decide.WAIT),
    # silence
    ("silent", of(verdicts.UNREACHABLE, brought_up=True), decide.WAIT),
    ("silent, a replaced box overdue", of(verdicts.UNREACHABLE, settle_due=True), decide.WAIT),
    ("outbid during an outage", of(verdicts.OUTBID, brought_up=True, outage="all silent"), decide.WAIT),
    ("gone during an outage", of(verdicts.GONE, brought_up=True, outage="all silent", replaceable=True), decide.WAIT),
    ("done during an outage", of(verdicts.FINISHED, outage="all silent"), decide.HARVEST),
    # pushes
    ("starting again", of(verdicts.STARTING, brought_up=True), decide.WAIT),
    ("needs a start", of(verdicts.STALLED, needs_push=True, brought_up=True), decide.RESTART),
    ("starts do not help", of(verdicts.STALLED, needs_push=True, tried=Tried(restart=2)), decide.GIVE_UP),
    ("forgot its run", of(verdicts.BARE, brought_up=True), decide.RESTART),
    # the ladder
    ("outbid", of(verdicts.OUTBID, brought_up=True), decide.RAISE_BID),
    ("outbid, above the cap", of(verdicts.OUTBID, raise_fits=False, replaceable=True), decide.NEXT_OFFER),
    ("outbid, raised twice", of(verdicts.OUTBID, tried=Tried(raise_bid=2), replaceable=True), decide.NEXT_OFFER),
    ("outbid, nowhere to go", of(verdicts.OUTBID, tried=Tried(raise_bid=2)), decide.GIVE_UP),
    ("stopped", of(verdicts.STOPPED, brought_up=True, replaceable=True), decide.RESTART),
    ("exited, started twice", of(verdicts.EXITED, tried=Tried(restart=2), replaceable=True), decide.NEXT_OFFER),
    ("stuck loading", of(verdicts.LOADING_STUCK, brought_up=True), decide.RESTART),
    ("GPU taken", of(verdicts.SCHEDULING_STUCK, brought_up=True, replaceable=True), decide.RESTART),
    ("GPU kept", of(verdicts.SCHEDULING_STUCK, tried=Tried(restart=2), replaceable=True), decide.NEXT_OFFER),
    ("host lost", of(verdicts.HOST_OFFLINE, brought_up=True, replaceable=True), decide.NEXT_OFFER),
    ("host lost, a spare", of(verdicts.HOST_OFFLINE, spare=True), decide.NEXT_CANDIDATE),
    ("in Alert, it would bill beside the spare", of(verdicts.HOST_OFFLINE, spare=True, bills_on=True), decide.GIVE_UP),
    ("gone", of(verdicts.GONE, brought_up=True, replaceable=True), decide.NEXT_OFFER),
    ("card lost", of(verdicts.ZERO_GPU, replaceable=True), decide.PULL),
    ("card lost, work home", of(verdicts.ZERO_GPU, salvaged=True, replaceable=True), decide.NEXT_OFFER),
    # the same, with a volume, which one machine has
    ("outbid, with a volume", of(verdicts.OUTBID, bound=True, replaceable=True), decide.RAISE_BID),
    ("outbid above the cap, with a volume", of(verdicts.OUTBID, raise_fits=False, **VOLUME), decide.SAME_MACHINE),
    ("GPU taken, with a volume", of(verdicts.SCHEDULING_STUCK, **VOLUME), decide.RESTART),
    ("GPU kept, with a volume", of(verdicts.SCHEDULING_STUCK, tried=STARTED, **VOLUME), decide.SAME_MACHINE),
    ("stopped for good, with a volume", of(verdicts.STOPPED, tried=STARTED, **VOLUME), decide.SAME_MACHINE),
    ("exited, with a volume", of(verdicts.EXITED, tried=STARTED, **VOLUME), decide.SAME_MACHINE),
    ("gone, its volume is not", of(verdicts.GONE, **VOLUME), decide.SAME_MACHINE),
    ("its machine is full", of(verdicts.GONE, tried=Tried(same_machine=1), **VOLUME), decide.GIVE_UP),
    ("its machine is full, a spare", of(verdicts.GONE, tried=Tried(same_machine=1), spare=True, **VOLUME),
     decide.NEXT_CANDIDATE),
    ("the volume's host is lost", of(verdicts.HOST_OFFLINE, **VOLUME), decide.GIVE_UP),
    ("the volume's host is lost, a spare", of(verdicts.HOST_OFFLINE, spare=True, **VOLUME), decide.NEXT_CANDIDATE),
    ("no room for it", of(verdicts.GONE, money=FULL, **VOLUME), decide.GIVE_UP),
    ("a market that rents no other box", of(verdicts.GONE, bound=True), decide.GIVE_UP),
    ("offers tried", of(verdicts.GONE, tried=Tried(next_offer=3), replaceable=True, spare=True), decide.NEXT_CANDIDATE),
    ("all tried", of(verdicts.GONE, tried=ALL_TRIED, replaceable=True, spare=True), decide.GIVE_UP),
    ("no room to rent", of(verdicts.GONE, money=FULL, replaceable=True), decide.GIVE_UP),
    ("no room, a start in place", of(verdicts.STOPPED, money=FULL), decide.RESTART),
    ("spent, and stopped", of(verdicts.STOPPED, money=SPENT), decide.GIVE_UP),
    ("spent, and not rented", of(verdicts.NOT_RENTED, money=SPENT), decide.GIVE_UP),
    ("spent, and gone", of(verdicts.GONE, money=SPENT), decide.GIVE_UP),
    ("spent, and the provider is silent", of(verdicts.UNREACHABLE, money=SPENT), decide.WAIT),
    *((f"spent, and {name}", of(name, money=SPENT, computes=True), decide.PARK) for name in COMPUTING),
    *((f"spent, {name}, all tried", of(name, money=SPENT, computes=True, tried=ALL_TRIED), decide.PARK)
      for name in COMPUTING),
    *((f"spent, {name}, in an outage", of(name, money=SPENT, computes=True, outage="all silent"), decide.PARK)
      for name in COMPUTING),
    *((f"spent, {name}, nothing stops it", of(name, money=SPENT, computes=True, bills_on=True, salvaged=True),
       decide.BILLS_ON) for name in COMPUTING),
    ("spent, needs a push", of(verdicts.STALLED, money=SPENT, computes=True, needs_push=True), decide.PARK),
    ("spent, its GPU is gone, nothing stops it", of(verdicts.ZERO_GPU, money=SPENT, computes=True, bills_on=True),
     decide.PULL),
    ("failed over its budget", of(verdicts.FAILED, money=SPENT, computes=True), decide.HARVEST_FAILED),
    *((f"{name}, spent, a harvest is left", of(name, **FAILING, harvests=decide.HARVESTS - 1), kind)
      for name, kind in HARVESTED),
    *((f"{name}, spent, and no harvest brings it home", of(name, **FAILING, harvests=decide.HARVESTS), decide.PARK)
      for name, _kind in HARVESTED),
    *((f"{name}, no harvest brings it home, and it is paid for", of(name, computes=True, harvests=99), kind)
      for name, kind in HARVESTED),
    *((f"{name}, the same, nothing stops it", of(name, **FAILING, bills_on=True, harvests=99), kind)
      for name, kind in HARVESTED),
    ("replaced over its budget", of(verdicts.SUPERSEDED, money=SPENT, computes=True), decide.WAIT),
    ("all tried, and it computes", of(verdicts.ZERO_GPU, computes=True, salvaged=True, tried=ALL_TRIED),
     decide.GIVE_UP),
    # what a rung may cost
    ("starts cost little", of(verdicts.STOPPED, tried=ONCE, money=dear(restart=0.24)), decide.RESTART),
    ("starts cost their share", of(verdicts.STOPPED, tried=ONCE, money=dear(restart=0.25), replaceable=True),
     decide.NEXT_OFFER),
    ("bids cost their share", of(verdicts.OUTBID, tried=ONCE, money=dear(raise_bid=0.3), replaceable=True),
     decide.NEXT_OFFER),
    ("offers cost their share", of(verdicts.GONE, tried=ONCE, money=dear(next_offer=0.3), replaceable=True, spare=True),
     decide.NEXT_CANDIDATE),
    ("offers cost their share, no spare", of(verdicts.GONE, tried=ONCE, money=dear(next_offer=0.3), replaceable=True),
     decide.GIVE_UP),
    ("what starts cost is unknown", of(verdicts.STOPPED, tried=ONCE, money=dear(restart=None)), decide.GIVE_UP),
    ("its pushes cost their share", of(verdicts.BARE, brought_up=True, tried=ONCE, money=dear(restart=0.3)),
     decide.GIVE_UP),
    ("its volume's machine cost its share", of(verdicts.GONE, money=dear(same_machine=0.3), **VOLUME), decide.GIVE_UP),
    ("dear without a bound", of(verdicts.STOPPED, tried=ONCE, money=Money(rungs=Costs(restart=9.0))), decide.RESTART),
    ("cost unknown", of(verdicts.GONE, money=Money(None, 1.0), replaceable=True), decide.GIVE_UP),
    ("cost unknown, no budget", of(verdicts.GONE, money=Money(None), replaceable=True), decide.NEXT_OFFER),
]  # fmt: skip


@pytest.mark.parametrize(("situation", "kind"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_decision(situation: Situation, kind: str) -> None:
    action = decide.decide(situation)
    assert action.kind == kind
    assert action.why


def test_every_verdict_and_every_action_has_a_row() -> None:
    assert {row[1].verdict.name for row in TABLE} == set(verdicts.ALL)
    kinds = {value for name, value in vars(decide).items() if name.isupper() and isinstance(value, str)}
    assert {row[2] for row in TABLE} == kinds


@pytest.mark.parametrize(
    ("situation", "failure", "says"),
    [
        (
            of(verdicts.STOPPED, tried=ONCE, money=dear(restart=0.3)),
            "budget",
            "restart ($0.30), of which each may cost $0.25",
        ),
        (of(verdicts.STOPPED, tried=ONCE, money=dear(restart=None)), "budget", "restart (nobody knows what)"),
        (
            of(verdicts.BARE, brought_up=True, tried=ONCE, money=dear(restart=0.3)),
            "budget",
            "no more may be spent on restart",
        ),
        (
            of(verdicts.STOPPED, tried=ALL_TRIED, money=dear(restart=0.3)),
            "no_offer",
            "every way to recover it was tried",
        ),
        (of(verdicts.GONE, tried=ALL_TRIED, replaceable=True), "no_offer", "every way to recover it was tried"),
    ],
)
def test_an_end_for_want_of_money_says_what_cost_how_much(situation: Situation, failure: str, says: str) -> None:
    action = decide.decide(situation)
    assert (action.kind, action.failure) == (decide.GIVE_UP, failure)
    assert says in action.why


@pytest.mark.parametrize("name", [verdicts.OUTBID, verdicts.STOPPED, verdicts.EXITED])
def test_a_loss_counts_as_interruption_only_after_it_was_up(name: str) -> None:
    assert decide.decide(of(name, brought_up=True)).interruption is True
    assert decide.decide(of(name, brought_up=False)).interruption is False


tries = st.builds(Tried, *[st.integers(0, 4)] * 5)
costs = st.builds(Costs, *[st.none() | st.floats(0, 1)] * 5)
moneys = st.builds(
    Money,
    st.none() | st.floats(0, 3),
    st.none() | st.floats(0.1, 3),
    st.floats(0, 1),
    per_rung=st.none() | st.floats(0.01, 1),
    rungs=costs,
)
situations = st.builds(
    Situation,
    verdict=st.builds(Verdict, st.sampled_from(verdicts.ALL), st.just("why"), st.just(()), st.booleans()),
    home=st.booleans(),
    brought_up=st.booleans(),
    outage=st.sampled_from(["", "all silent"]),
    tried=tries,
    limits=st.just(Limits()),
    money=moneys,
    raise_fits=st.none() | st.booleans(),
    replaceable=st.booleans(),
    bound=st.booleans(),
    spare=st.booleans(),
    left_running=st.booleans(),
    outlived=st.booleans(),
    harvests=st.integers(0, 9),
    salvaged=st.booleans(),
    pull_due=st.booleans(),
    settle_due=st.booleans(),
    computes=st.booleans(),
    bills_on=st.booleans(),
)


@given(situations)
def test_every_situation_has_one_action_and_none_rents_what_may_not_be_rented(situation: Situation) -> None:
    action = decide.decide(situation)
    assert action.why
    if action.kind in decide.RENTING:
        assert situation.money.has_room
        assert not situation.outage
    if action.kind in (decide.SAME_MACHINE, decide.NEXT_OFFER):
        assert (action.kind == decide.SAME_MACHINE) is situation.bound
    if action.kind in decide.RUNGS:
        assert situation.tried.of(action.kind) < situation.limits.of(action.kind)
        assert situation.money.bears(action.kind)


@given(situations)
def test_what_bills_until_its_end_is_neither_parked_nor_left_beside_another_box(situation: Situation) -> None:
    action = decide.decide(replace(situation, bills_on=True))
    assert action.kind not in (decide.PARK, decide.NEXT_CANDIDATE)
    if action.kind in (decide.FINISH, decide.GIVE_UP, decide.BILLS_ON) and "budget has no room" not in action.why:
        assert "bills on" in action.why or "its budget is spent" in action.why or "did not help" in action.why


@given(situations)
def test_a_finished_run_is_never_started_again(situation: Situation) -> None:
    if situation.home:
        stops_the_meter = (decide.HARVEST,) if situation.left_running else ()
        stops_its_heir = (decide.PARK,) if situation.outlived else ()
        assert decide.decide(situation).kind in (decide.FINISH, decide.SETTLE, *stops_the_meter, *stops_its_heir)
    finished = replace(situation, verdict=Verdict(verdicts.FINISHED, "done"))
    assert decide.decide(finished).kind in (decide.FINISH, decide.SETTLE, decide.HARVEST, decide.PARK)


@given(st.integers(-5, 10**6), st.floats(0.1, 10), st.floats(10, 100))
def test_back_off_grows_and_is_bounded(number: int, first: float, most: float) -> None:
    pause = decide.back_off(number, first, most)
    assert first <= pause <= most
    assert decide.back_off(number + 1, first, most) >= pause
