# SPDX-License-Identifier: MIT
"""Two holders never have one box at once, and the epoch only grows, whatever happens in whatever order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import holders, lease
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.holders import ALIVE, DEAD, FOREIGN, Holder
from ansible_collections.tenant.gpu.plugins.module_utils.lease import Ask, Lease
from hypothesis import given, settings
from hypothesis import strategies as st

START = 1_700_000_000.0
TWO_HOSTS = ("north", "south")


def holder(host: str, pid: int) -> Holder:
    return Holder("ops", host, f"machine of {host}", "boot-1", "pid:[1]", 7, pid, 1000 + pid)


@dataclass
class World:
    """Two controllers, each with a clock of its own, and processes that act on what they last were told."""

    now: float = START
    skew: dict[str, float] = field(default_factory=lambda: dict.fromkeys(TWO_HOSTS, 0.0))
    kept: Lease | None = None
    alive: set[Holder] = field(default_factory=set)
    believes: dict[Holder, Lease] = field(default_factory=dict)
    lost: set[Holder] = field(default_factory=set)
    highest: int = 0

    def clock(self, host: str) -> float:
        return self.now + self.skew[host]

    def seen_from(self, host: str):
        def state_of(who: Holder) -> str:
            if who.host != host:
                return FOREIGN
            return ALIVE if who in self.alive else DEAD

        return state_of

    def save(self, after: Lease | None) -> None:
        if after is None:
            return
        assert after.epoch >= self.highest
        if self.kept is None or (after.nonce, after.granted_at) != (self.kept.nonce, self.kept.granted_at):
            assert after.epoch > self.highest, "a new grant has a new epoch"
        self.highest, self.kept = after.epoch, after

    def take(self, who: Holder, over: bool = False) -> None:
        if who not in self.alive:
            # Another process, if of the same number.
            self.alive.add(who)
            self.lost.discard(who)
            self.kept = self.kept and replace(
                self.kept, displaced=tuple(one for one in self.kept.displaced if one != who)
            )
        nonce = self.kept.nonce if over and self.kept else ""
        ask = Ask("p", "box", "train", f"{who.host}-{who.pid}", who, over=nonce)
        try:
            grant = lease.take(self.kept, ask, self.clock(who.host), self.seen_from(who.host))
        except lease.Held:
            return
        assert who not in self.lost, "it was taken away from this very process"
        if grant.how in ("taken", "expired"):
            assert grant.replaced is not None
            self.lost |= {one for one in grant.replaced.holders if self.seen_from(who.host)(one) != DEAD} - {who}
        if grant.how == "taken":
            # A person decided that the others must stop: the fence and `displaced` are for them.
            assert grant.replaced is not None
            for other in grant.replaced.holders:
                assert other in grant.lease.displaced or self.seen_from(who.host)(other) == DEAD
                self.believes.pop(other, None)
        self.save(grant.lease)
        self.believes[who] = grant.lease

    def renew(self, who: Holder) -> None:
        if who not in self.alive:
            return
        renewed = lease.renew(self.kept, who, self.clock(who.host))
        self.save(renewed)
        if renewed is None:
            self.believes.pop(who, None)
        else:
            self.believes[who] = renewed

    def release(self, who: Holder) -> None:
        self.believes.pop(who, None)
        self.save(lease.release(self.kept, who, self.clock(who.host)))

    def crash(self, who: Holder) -> None:
        self.alive.discard(who)
        self.believes.pop(who, None)

    def acting(self) -> list[Holder]:
        """Those that may act now, by their own clock and by what they were told last."""
        return [who for who, told in self.believes.items() if told.left_s(self.clock(who.host)) > 0]


PEOPLE = [holder(host, pid) for host in TWO_HOSTS for pid in (1, 2)]
STEPS = st.one_of(
    st.tuples(st.sampled_from(["take", "renew", "release", "crash", "take_over"]), st.sampled_from(PEOPLE)),
    st.tuples(st.just("pass"), st.floats(0, 2 * lease.TERM_S)),
)
SKEW = st.floats(-lease.CLOCK_TOLERANCE_S / 2, lease.CLOCK_TOLERANCE_S / 2)


@settings(max_examples=60)
@given(st.lists(STEPS, max_size=30), SKEW, SKEW)
def test_two_holders_never_have_one_box_and_the_epoch_only_grows(steps, north: float, south: float) -> None:
    world = World(skew={"north": north, "south": south})
    for what, value in steps:
        if what == "pass":
            world.now += value
        elif what == "take_over":
            world.take(value, over=True)
        else:
            getattr(world, what)(value)
        assert len(world.acting()) <= 1
        if world.acting():
            assert world.kept is not None
            assert world.kept.holders == tuple(world.acting())


def test_a_clock_that_is_too_wrong_breaks_it() -> None:
    """So the tolerance is what holds it up, and the property above can fail."""
    world = World(skew={"north": 0.0, "south": lease.CLOCK_TOLERANCE_S + 1})
    world.take(PEOPLE[0])
    world.now += lease.TERM_S - 0.5
    world.take(PEOPLE[2])
    assert len(world.acting()) == 2


def test_one_that_is_seen_to_live_does_not_lose_it_to_a_clock_that_was_set() -> None:
    """Nor to a machine that slept: the keeper wakes up no sooner than who would take it."""
    world = World(skew={"north": 0.0, "south": 0.0})
    world.take(PEOPLE[0])
    world.now += 30 * 24 * 3600.0
    world.take(PEOPLE[1])
    assert world.kept is not None
    assert world.kept.holders == (PEOPLE[0],)
    world.take(PEOPLE[2])
    assert world.kept.holders == (PEOPLE[2],), "of another machine it is not known, and time decides"


def test_an_end_that_a_wrong_clock_named_goes_with_its_next_renewal() -> None:
    who, stranger = PEOPLE[0], PEOPLE[2]
    ahead = grant_to(who, now=START + 365 * 24 * 3600.0).lease
    renewed = lease.renew(ahead, who, START)
    assert renewed is not None
    assert renewed.until == START + lease.TERM_S
    assert grant_to(who, ahead, START).lease.until == START + lease.TERM_S
    over = lease.take(renewed, Ask("p", "box", "train", "n", stranger), START + 400.0, lambda other: FOREIGN)
    assert (over.how, over.lease.epoch > ahead.epoch) == ("expired", True), "and the epoch does not go back"


def grant_to(who: Holder, before: Lease | None = None, now: float = START, **more) -> lease.Grant:
    ask = Ask("p", "box", more.pop("purpose", "train"), more.pop("nonce", f"n{who.pid}"), who, **more)
    return lease.take(before, ask, now, lambda other: ALIVE)


def test_a_lost_store_does_not_take_the_epoch_back() -> None:
    first = grant_to(PEOPLE[0]).lease
    again = grant_to(PEOPLE[1], None, START + 1).lease
    assert again.epoch > first.epoch


def test_a_playbook_joins_the_lease_of_the_runner_that_started_it() -> None:
    runner, playbook = PEOPLE[:2]
    first = grant_to(runner, nonce="shared").lease
    joined = grant_to(playbook, first, nonce="shared")
    assert joined.how == "joined"
    assert joined.lease.epoch == first.epoch
    orphaned = lease.release(joined.lease, runner, START)
    assert orphaned is not None
    with pytest.raises(lease.Held):
        grant_to(PEOPLE[2], orphaned)
    over = lease.release(orphaned, playbook, START)
    assert over is not None
    assert over.released_at == START


def test_a_refusal_says_who_how_long_and_how_to_take_over() -> None:
    told = str(lease.refusal(grant_to(PEOPLE[0], nonce="abc").lease))
    for part in ("process 1 of ops on north", lease.utc(START + lease.TERM_S), "-e box_lease_from=abc", "train"):
        assert part in told


def test_a_record_reads_back() -> None:
    before = grant_to(PEOPLE[0]).lease
    after = grant_to(PEOPLE[1], before, over="n1").lease
    assert lease.from_record(lease.as_record(after)) == after
    assert after.displaced == (PEOPLE[0],)


def test_who_lost_it_gets_it_no_more_though_others_had_it_since() -> None:
    """A play of several parts takes the lease at the beginning of each."""
    lost, taker, third = holder("north", 1), holder("south", 2), holder("south", 3)
    kept: Lease | None = grant_to(taker, grant_to(lost).lease, over="n1").lease
    for who in (taker, third):
        with pytest.raises(lease.Held) as refused:
            grant_to(lost, kept)
        assert refused.value.was_ours
        kept = lease.release(kept, who, START)
        assert kept is not None
        with pytest.raises(lease.Held):
            grant_to(lost, kept)
        kept = grant_to(third, kept).lease
    assert kept.displaced == (lost,)
    told = str(lease.displaced(kept))
    assert "was taken away: 'train' (process 3 of ops on south) has had it since" in told
    dead = lease.take(lease.release(kept, third, START), Ask("p", "box", "x", "n", taker), START, lambda one: DEAD)
    assert dead.lease.displaced == (), "the dead act no more"


@pytest.mark.parametrize("key", ["holders", "until", "epoch", "displaced"])
def test_a_record_that_holds_no_lease_is_refused(key: str) -> None:
    record = lease.as_record(grant_to(PEOPLE[0]).lease)
    with pytest.raises(records.RecordError, match="box"):
        lease.from_record({**record, key: ["x"]})


@pytest.mark.parametrize(
    ("change", "exists", "verdict"),
    [
        ({}, True, ALIVE),
        ({}, False, DEAD),
        ({"start": 4}, True, DEAD),
        ({"host": "south"}, True, FOREIGN),
        ({"machine": "another of the same name"}, True, FOREIGN),
        ({"boot_id": "boot-2"}, True, DEAD),
        ({"namespace": "pid:[2]"}, False, FOREIGN),
        ({"pid1_start": 8}, False, FOREIGN),
    ],
)
def test_who_is_dead(change: dict, exists: bool, verdict: str) -> None:
    known = holder("north", 1)
    assert holders.judge(known, replace(known, **change), exists) == verdict


def test_without_a_machine_id_a_reboot_is_not_told_from_another_machine() -> None:
    known = replace(holder("north", 1), machine="")
    assert holders.judge(known, replace(known, boot_id="boot-2"), True) == FOREIGN
