# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What to do with a box, given the verdict on it: the one decision of ``go`` and ``watch``. Pure: no clock, no disk.

Never an action that ends a box: what destroys is a person's approval and the gate, not a decision here. A lost box is
recovered by the cheapest rung that may help, each tried so often and not more, no more once it has cost its share, and
never beyond the budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ansible_collections.tenant.gpu.plugins.module_utils.purse import UNLIMITED, Purse

from gpu_tenant import verdicts
from gpu_tenant.verdicts import Verdict

WAIT = "wait"
RENT = "rent"
START = "start"
RESTART = "restart"
RAISE_BID = "raise_bid"
SAME_MACHINE = "same_machine"
NEXT_OFFER = "next_offer"
NEXT_CANDIDATE = "next_candidate"
PULL = "pull"
SETTLE = "settle"
HARVEST = "harvest"
HARVEST_FAILED = "harvest_failed"
PARK = "park"
BILLS_ON = "bills_on"
GIVE_UP = "give_up"
FINISH = "finish"
# These may create a box at the provider, so each needs room in the budget.
RENTING = (RENT, SAME_MACHINE, NEXT_OFFER, NEXT_CANDIDATE)
RUNGS = (RESTART, RAISE_BID, SAME_MACHINE, NEXT_OFFER, NEXT_CANDIDATE)
# All that bring a box up by the same playbook.
BRINGING_UP = (RENT, START, RESTART, RAISE_BID, SAME_MACHINE, NEXT_OFFER)

# Of a run that is done or failed, once its budget is spent: so many harvests that bring nothing home, and its box is
# stopped with what it holds.
HARVESTS = 5

# Of a budget that does not say what each rung may cost: this share of it.
RUNG_SHARE = 0.25

# The ladder of each loss, the cheapest rung first. Waiting for a GPU that somebody else holds, or for a host without
# power, helps nobody; a start in place keeps the disk, and with it all that was not copied yet. Where the machine is
# not the trouble, another box of it sees the same volume.
_LADDERS: dict[str, tuple[str, ...]] = {
    verdicts.STOPPED: (RESTART, SAME_MACHINE, NEXT_OFFER, NEXT_CANDIDATE),
    verdicts.EXITED: (RESTART, SAME_MACHINE, NEXT_OFFER, NEXT_CANDIDATE),
    verdicts.OUTBID: (RAISE_BID, SAME_MACHINE, NEXT_OFFER, NEXT_CANDIDATE),
    verdicts.LOADING_STUCK: (RESTART, NEXT_OFFER, NEXT_CANDIDATE),
    verdicts.SCHEDULING_STUCK: (RESTART, SAME_MACHINE, NEXT_OFFER, NEXT_CANDIDATE),
    verdicts.NO_PYTHON: (RESTART, NEXT_OFFER, NEXT_CANDIDATE),
    verdicts.HOST_OFFLINE: (NEXT_OFFER, NEXT_CANDIDATE),
    verdicts.ZERO_GPU: (NEXT_OFFER, NEXT_CANDIDATE),
    verdicts.GONE: (SAME_MACHINE, NEXT_OFFER, NEXT_CANDIDATE),
}


@dataclass(frozen=True)
class Limits:
    """How often each rung is tried before the next one, since the run last trained."""

    restart: int = 2
    raise_bid: int = 2
    same_machine: int = 1
    next_offer: int = 3
    next_candidate: int = 1

    def of(self, rung: str) -> int:
        return int(getattr(self, rung))


@dataclass(frozen=True)
class Tried:
    """How often each rung was tried since the run last trained."""

    restart: int = 0
    raise_bid: int = 0
    same_machine: int = 0
    next_offer: int = 0
    next_candidate: int = 0

    def of(self, rung: str) -> int:
        return int(getattr(self, rung))


@dataclass(frozen=True)
class Costs:
    """Dollars that went by from each try of a rung to the next act, since the run last trained; None is unknown."""

    restart: float | None = 0.0
    raise_bid: float | None = 0.0
    same_machine: float | None = 0.0
    next_offer: float | None = 0.0
    next_candidate: float | None = 0.0

    def of(self, rung: str) -> float | None:
        cost: float | None = getattr(self, rung)
        return cost


@dataclass(frozen=True)
class Money(Purse):
    """What is gone of the run's budget; whether there is room, and what is near its end or spent, is of both budgets.

    :param per_rung: what each rung may cost before it is tried no more; None is no bound.
    :param project: what is gone of the budget of all that the project rents.
    """

    per_rung: float | None = None
    rungs: Costs = Costs()
    project: Purse = UNLIMITED

    @property
    def run(self) -> Purse:
        """The run's budget alone."""
        return Purse(self.spent, self.budget, self.reserve, self.warn_at, self.held)

    def bears(self, rung: str) -> bool:
        """Whether a rung has not cost its share yet. One whose cost nobody knows may have."""
        cost = self.rungs.of(rung)
        return self.per_rung is None or (cost is not None and cost < self.per_rung)

    @property
    def has_room(self) -> bool:
        return self.run.has_room and self.project.has_room

    @property
    def is_near(self) -> bool:
        return self.run.is_near or self.project.is_near

    @property
    def is_spent(self) -> bool:
        return self.run.is_spent or self.project.is_spent

    @property
    def spent_one(self) -> str:
        """Which budget is spent, in words."""
        return "its budget" if self.run.is_spent else "the budget of its project"

    @property
    def full_one(self) -> str:
        """Which budget has no room, in words."""
        return "the budget" if not self.run.has_room else "the budget of its project"


@dataclass(frozen=True)
class Situation:
    """All that the decision goes by.

    :param home: a complete receipt for this very run spec exists.
    :param brought_up: the box was at work before, by our records or by a look.
    :param outage: why most boxes are silent at once; empty while they are not.
    :param raise_fits: whether a winning bid fits under the cap; None while the provider does not say.
    :param replaceable: another box can be rented for this name.
    :param bound: it is rented with volumes, and they lie on one machine: no other one can be rented for it.
    :param spare: another candidate can take the run over.
    :param left_running: it is home, and what stops the meter after a harvest never came to its box.
    :param outlived: it is home from an earlier machine of the box, and the one that is there computes on.
    :param failed_home: what a failed run left is home; people decide how it goes on.
    :param harvests: how many harvests in a row did not bring home the run that has ended there.
    :param salvaged: what a box that still answers holds was brought home since it fell ill.
    :param pull_due: it is time to bring the newest checkpoints home.
    :param settle_due: the deadline of a box that this one replaced has passed.
    :param computes: its provider shows a machine that nobody told to stop.
    :param bills_on: it is rented, and nothing but its end stops its meter: its platform has no state of rest.
    """

    verdict: Verdict
    home: bool = False
    brought_up: bool = False
    outage: str = ""
    tried: Tried = Tried()
    limits: Limits = Limits()
    money: Money = Money()
    raise_fits: bool | None = None
    replaceable: bool = False
    bound: bool = False
    spare: bool = False
    left_running: bool = False
    outlived: bool = False
    failed_home: bool = False
    harvests: int = 0
    salvaged: bool = False
    pull_due: bool = False
    settle_due: bool = False
    computes: bool = False
    bills_on: bool = False


@dataclass(frozen=True)
class Action:
    """``why`` is a sentence for people; ``interruption`` marks a box that was lost while it was wanted.

    :param failure: of an end, the kind of failure that it is, as exit codes know them.
    """

    kind: str
    why: str
    interruption: bool = False
    failure: str = ""


def decide(now: Situation) -> Action:
    """The one next action."""
    name, why = now.verdict.name, now.verdict.why
    if now.settle_due and not now.outage and name != verdicts.UNREACHABLE:
        return Action(SETTLE, "the deadline of a box that it replaced has passed")
    if now.home and now.left_running and not now.outage:
        return Action(HARVEST, "its results are home, and the harvest was cut off before it stopped the box")
    if now.home and now.outlived and not now.outage and not now.bills_on:
        return Action(PARK, "its results are home from an earlier machine, and this one computes on")
    if now.home:
        return Action(FINISH, f"its results are home and verified{_still(now)}")
    if now.failed_home and now.money.is_spent and now.computes and not now.bills_on:
        return Action(
            PARK, f"the run failed, what it left is home, and {now.money.spent_one} is spent", failure="budget"
        )
    if now.failed_home:
        return Action(GIVE_UP, f"the run failed, and what it left is home{_still(now)}", failure="training_failed")
    if name == verdicts.SUPERSEDED:
        return Action(WAIT, why)
    if name in (verdicts.FINISHED, verdicts.FAILED):
        return _ended(now)
    at_work = name in (verdicts.RUNNING, verdicts.ALERT) or (name == verdicts.STALLED and not now.verdict.needs_push)
    if now.money.is_spent and (at_work or now.computes):
        return _overspent(now)
    if name == verdicts.UNREACHABLE:
        return Action(WAIT, why)
    return _at_work(now) if at_work else _wanted(now)


def _ended(now: Situation) -> Action:
    """What it left comes home first, but not at any price: its disk keeps it. Where nothing but the end of the box
    stops the meter, only a harvest opens the way there."""
    if now.money.is_spent and now.computes and not now.bills_on and now.harvests >= HARVESTS:
        why = f"{now.verdict.why}, {now.harvests} harvests did not bring it home, and {now.money.spent_one} is spent"
        return Action(PARK, why, failure="budget")
    return Action(HARVEST if now.verdict.name == verdicts.FINISHED else HARVEST_FAILED, now.verdict.why)


def _overspent(now: Situation) -> Action:
    """Whatever is the matter with a machine that computes: it is paid for, and nobody consented to more. Silence of the
    box is no reason to let it bill, for its provider answers, and a stop keeps its disk."""
    if not now.bills_on:
        return Action(PARK, f"{now.money.spent_one} is spent", failure="budget")
    if now.pull_due or _holds_what_was_not_salvaged(now):
        return Action(PULL, f"{now.money.spent_one} is spent{_still(now)}; what it holds comes home")
    return Action(BILLS_ON, f"{now.money.spent_one} is spent{_still(now)}", failure="budget")


def _at_work(now: Situation) -> Action:
    return Action(PULL, "its newest checkpoints are due at home") if now.pull_due else Action(WAIT, now.verdict.why)


def _holds_what_was_not_salvaged(now: Situation) -> bool:
    return now.verdict.name == verdicts.ZERO_GPU and not now.salvaged


def _wanted(now: Situation) -> Action:
    """The box shall work and does not: bring it there, unless everything is silent or the money is gone."""
    name, why = now.verdict.name, now.verdict.why
    if now.outage:
        return Action(WAIT, f"nothing is recovered now: {now.outage}")
    if now.money.is_spent:
        return Action(GIVE_UP, f"{why}, and {now.money.spent_one} is spent", failure="budget")
    if name == verdicts.NOT_RENTED:
        return Action(RENT, why) if now.money.has_room else _no_room(now, why)
    if name == verdicts.STARTING:
        return Action(WAIT, why) if now.brought_up else Action(START, why)
    if name == verdicts.BARE and not now.brought_up:
        return Action(START, why)
    if name in (verdicts.BARE, verdicts.STALLED):
        return pushed(now)
    return _recovered(now)


def pushed(now: Situation) -> Action:
    """It was at work and needs another start; one that needs it again and again needs a person."""
    if _may_try(RESTART, now):
        return Action(RESTART, now.verdict.why)
    why = f"{now.verdict.why}, and {now.tried.restart} starts did not help"
    return Action(GIVE_UP, why + _too_dear(now, [RESTART]), failure=_failure(now, [RESTART]))


def _recovered(now: Situation) -> Action:
    if _holds_what_was_not_salvaged(now):
        return Action(PULL, f"{now.verdict.why}; what it holds comes home before another box takes over")
    could_help = [rung for rung in _LADDERS[now.verdict.name] if _is_open(rung, now)]
    for rung in could_help:
        if _may_try(rung, now):
            if rung in RENTING and not now.money.has_room:
                return _no_room(now, now.verdict.why, now.brought_up)
            return Action(rung, now.verdict.why, now.brought_up)
    why = f"{now.verdict.why}, and every way to recover it was tried"
    if now.bound:
        why += " on the machine where its volumes lie"
    why += _too_dear(now, could_help) + _still(now)
    return Action(GIVE_UP, why, now.brought_up, _failure(now, could_help))


def _may_try(rung: str, now: Situation) -> bool:
    return now.tried.of(rung) < now.limits.of(rung) and now.money.bears(rung)


def _dear(now: Situation, rungs: Sequence[str]) -> list[str]:
    """Rungs that would be tried once more, had they not cost their share."""
    return [rung for rung in rungs if now.tried.of(rung) < now.limits.of(rung) and not now.money.bears(rung)]


def _too_dear(now: Situation, rungs: Sequence[str]) -> str:
    dear = ", ".join(f"{rung.replace('_', ' ')} ({_dollars(now.money.rungs.of(rung))})" for rung in _dear(now, rungs))
    return f"; no more may be spent on {dear}, of which each may cost {_dollars(now.money.per_rung)}" if dear else ""


def _dollars(amount: float | None) -> str:
    return "nobody knows what" if amount is None else f"${amount:.2f}"


def _failure(now: Situation, rungs: Sequence[str]) -> str:
    return "budget" if _dear(now, rungs) else "no_offer"


def _is_open(rung: str, now: Situation) -> bool:
    """Whether a rung could help at all here."""
    if rung == RAISE_BID:
        return now.raise_fits is not False
    if rung in (SAME_MACHINE, NEXT_OFFER):
        return now.replaceable and now.bound is (rung == SAME_MACHINE)
    # A box that cannot rest would bill beside the one that takes its run over, and may still be at work.
    return now.spare and not now.bills_on if rung == NEXT_CANDIDATE else True


def _still(now: Situation) -> str:
    return "; it bills on, for nothing but its end stops it" if now.bills_on else ""


def _no_room(now: Situation, why: str, interruption: bool = False) -> Action:
    return Action(GIVE_UP, f"{why}, and {now.money.full_one} has no room for another box", interruption, "budget")


def back_off(round_number: int, first_s: float, most_s: float) -> float:
    """Seconds to wait before the next look: ``first_s``, growing by half each round, at most ``most_s``."""
    return float(min(first_s * 1.5 ** min(max(round_number, 0), 40), most_s))
