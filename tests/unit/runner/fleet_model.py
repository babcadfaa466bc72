# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A small model of provider, boxes, network and ledger, in which a decision is played out step by step.

It knows the truth that the witnesses only tell in part: whether a box is really gone, whether its run is finished, what
was spent. Every breach of a law raises at the moment when it happens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ansible_collections.tenant.gpu.plugins.module_utils.purse import Purse

from gpu_tenant import decide, verdicts
from gpu_tenant.decide import Action, Costs, Money, Situation, Tried
from gpu_tenant.verdicts import BoxWord, LedgerWord, ProviderWord, Verdict

STEP_S = 300.0
BUDGET = 3.0
PROJECT_BUDGET = 5.0
RESERVE = 0.5
PRICE_OF_A_STEP = 0.15
PER_RUNG = 0.3
# So much work may be at risk before it is brought home.
RPO_STEPS = 2
# What is due is done at once, or as soon as the provider and the network let anybody.
DUE_STEPS = 3
# One other thing may be more urgent at the next look.
OVERDUE_STEPS = 2


class Breach(AssertionError):
    """A law was broken."""


@dataclass
class Ledger:
    """What our records say of the run; it survives a kill of the runner."""

    home: bool = False
    spent: float = 0.0
    others_spent: float = 0.0

    @property
    def has_room(self) -> bool:
        own, all_of_it = self.spent + RESERVE, self.spent + self.others_spent + RESERVE
        return own <= BUDGET + 1e-9 and all_of_it <= PROJECT_BUDGET + 1e-9


@dataclass
class Old:
    """A machine that was replaced: it bills until it is dealt with."""

    due_at: int
    settled: bool = False


@dataclass
class Box:
    """One candidate: how it really is, what our records say of it, and what this process remembers.

    :param rests: its platform has a stop that keeps the disk, and lets a second machine be rented beside it.
    :param bound: it has a volume, and can be rented on one machine only.
    :param bid_is_told: whether the provider says what a winning bid is.
    :param parked: it was told to stop, and does not come back by itself when it is outbid.
    :param spends: steps for which it computed, or could at any moment, on a budget that is spent, and somebody could
        have stopped it.
    :param at_risk: steps of training that are nowhere but on its disk.
    :param overdue: steps since a pull, or the end of a harvest that was cut off, has been due and could be done.
    """

    rests: bool = True
    bound: bool = False
    # the truth
    state: str = "absent"
    parked: bool = False
    deployed: bool = False
    run: str = ""
    olds: list[Old] = field(default_factory=list)
    bid_fits: bool = True
    bid_is_told: bool = True
    at_risk: int = 0
    overdue: int = 0
    spends: int = 0
    # our records
    rented: bool = False
    tried: dict[str, int] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)
    rung: str = ""
    failed_home: bool = False
    harvests: int = 0
    cut_off: bool = False
    # this process
    absences: int = 0
    since: int = 0
    told: str = ""
    brought_up: bool = False
    salvaged: bool = False

    def note_training(self) -> None:
        self.tried.clear()
        self.costs.clear()
        self.rung = ""

    def forget(self, now: int) -> None:
        self.absences, self.since, self.told = 0, now, ""
        self.brought_up, self.salvaged = self.rented, False

    @property
    def works(self) -> bool:
        return self.state == "running" and self.deployed and self.run == "running"

    @property
    def comes_back(self) -> bool:
        """Whether its provider starts it again once its bid wins."""
        return self.state == "outbid" and not self.parked


class Fleet:
    """The boxes that one run may be on, the first of them now, and two boxes of others. ``decision`` and ``judge`` are
    what is tested; mutants take their place."""

    def __init__(
        self,
        decision: Callable[[Situation], Action] = decide.decide,
        judge: Callable[[ProviderWord, BoxWord, LedgerWord], Verdict] = verdicts.verdict,
        outage: Callable[..., str] = verdicts.outage,
    ) -> None:
        self._decision, self._judge, self._outage = decision, judge, outage
        self.now = 0
        self.boxes = [Box()]
        # who is silent
        self.provider_up = True
        self.network_up = True
        self.ssh_up = True
        self.denied_looks = self.denied_alone = 0
        # somebody cuts the next harvest off before it stops its box
        self.cuts_harvest = False
        # what cannot be harvested now, however often it is tried
        self.harvests_fail = False
        # what we know
        self.ledger = Ledger()
        self._looked = ""

    @property
    def box(self) -> Box:
        return self.boxes[0]

    @property
    def reachable(self) -> bool:
        return self.provider_up and self.network_up and self.ssh_up and not self.denied

    # --- what happens to the box ----------------------------------------------------------------------------------

    def world(self, state: str) -> None:
        """The provider's side changes: only a rented box can."""
        box = self.box
        if box.state == "absent":
            return
        if state == "vanished":
            box.state, box.deployed, box.run, box.at_risk = "absent", False, "", 0
        else:
            box.state = state
        box.parked = box.parked and state != "running"
        # Whoever starts it again later wants it at work.
        box.cut_off = box.cut_off and state == "running"
        if state != "running" and box.run == "running":
            box.run = "preempted"

    def train(self) -> None:
        box = self.box
        if box.state == "running" and box.run in ("queued", "preempted", "running"):
            box.run = "running"
            box.note_training()

    def end_run(self, how: str) -> None:
        if self.box.state == "running" and self.box.run == "running":
            self.box.run, self.box.harvests = how, 0

    def deny(self, looks: int, alone: bool) -> None:
        """The provider forgets the box for a while: all boxes at once, or this one for a single look. Of one box alone
        its word counts when it was given twice, and so it is only given once here when it is wrong."""
        if alone and self.box.absences == 0 and not self.denied_looks:
            self.denied_alone = 1
        elif not alone and not self.denied_alone and self.box.absences == 0:
            self.denied_looks = min(looks, verdicts.OUTAGE_ABSENCES - 1)

    @property
    def denied(self) -> bool:
        return bool(self.denied_looks or self.denied_alone)

    def others_spend_until(self, left: float) -> None:
        """Other runs of the project leave so many dollars of its budget."""
        ledger = self.ledger
        ledger.others_spent = max(ledger.others_spent, PROJECT_BUDGET - left - ledger.spent)

    def kill_the_runner(self) -> None:
        for box in self.boxes:
            box.forget(self.now)

    # --- looking and acting ---------------------------------------------------------------------------------------

    def words(self) -> tuple[ProviderWord, BoxWord, LedgerWord]:
        box = self.box
        if not (self.provider_up and self.network_up):
            provider = "unreachable"
        else:
            provider = "absent" if self.denied else box.state
        box.absences = box.absences + 1 if provider == "absent" else 0
        contact = "not_tried"
        if provider == "running":
            contact = "answered" if box.deployed else "no_supervisor"
            contact = contact if self.ssh_up else "unreachable"
        run = self._looked = box.run if contact == "answered" else ""
        told = f"{provider}/{contact}/{run}"
        if told != box.told:
            box.told, box.since = told, self.now
        if run:
            box.brought_up = True
        unchanged = (self.now - box.since) * STEP_S
        return (
            ProviderWord(provider, unchanged_s=unchanged, absences=box.absences),
            BoxWord(contact, run, unchanged_s=unchanged),
            LedgerWord(self.ledger.home, box.rented),
        )

    def step(self) -> Action:
        """One look, one decision, its effect; then time passes."""
        provider, word, ledger = self.words()
        situation = self._situation(provider, word, ledger)
        action = self._decision(situation)
        self._check_end(situation.verdict, action)
        self._act(action)
        self._pass_time()
        return action

    def _situation(self, provider: ProviderWord, word: BoxWord, ledger: LedgerWord) -> Situation:
        box, is_seen = self.box, provider.state not in ("absent", "unreachable")
        others = [self._of_other(name) for name in ("x", "y")]
        silent = verdicts.Silence("own", provider.state, word.contact, provider.absences)
        return Situation(
            verdict=self._judge(provider, word, ledger),
            home=self.ledger.home,
            brought_up=box.brought_up,
            outage=self._outage([silent, *others] if box.brought_up else others),
            tried=Tried(**box.tried),
            money=self._money(),
            raise_fits=box.bid_fits if is_seen and box.bid_is_told else None,
            replaceable=box.rests or provider.state == "absent",
            bound=box.bound,
            spare=len(self.boxes) > 1,
            left_running=self.ledger.home and box.cut_off and provider.state == "running",
            failed_home=box.failed_home,
            harvests=box.harvests,
            salvaged=box.salvaged,
            pull_due=word.run_state == "running" and box.at_risk >= RPO_STEPS,
            settle_due=any(not old.settled for old in box.olds),
            # An outbid one is shown at rest in the words of one that was told to, and comes back all the same.
            computes=is_seen and (box.comes_back or box.state not in ("stopped", "outbid")),
            bills_on=is_seen and not box.rests,
        )

    def _money(self) -> Money:
        project = Purse(self.ledger.spent + self.ledger.others_spent, PROJECT_BUDGET, RESERVE)
        rungs = Costs(**self.box.costs)
        return Money(self.ledger.spent, BUDGET, RESERVE, per_rung=PER_RUNG, rungs=rungs, project=project)

    def _of_other(self, name: str) -> verdicts.Silence:
        if not (self.provider_up and self.network_up):
            return verdicts.Silence(name, "unreachable", "not_tried")
        if self.denied_looks:
            return verdicts.Silence(name, "absent", "not_tried", self.box.absences)
        return verdicts.Silence(name, "running", "answered" if self.ssh_up else "unreachable")

    def _check_end(self, verdict: Verdict, action: Action) -> None:
        """Nothing is given up that another candidate would take over."""
        box, rung = self.box, decide.NEXT_CANDIDATE
        if action.kind != decide.GIVE_UP or verdict.name not in verdicts.LOST or box.failed_home or self.ledger.home:
            return
        is_open = len(self.boxes) > 1 and self.ledger.has_room and (box.rests or box.state == "absent")
        if is_open and box.tried.get(rung, 0) < decide.Limits().of(rung) and box.costs.get(rung, 0.0) < PER_RUNG:
            raise Breach("the run is given up, and another candidate would take it over")

    def _act(self, action: Action) -> None:
        box = self.box
        if action.kind in decide.RUNGS:
            box.tried[action.kind] = box.tried.get(action.kind, 0) + 1
            if box.tried[action.kind] > decide.Limits().of(action.kind):
                raise Breach(f"{action.kind} was tried {box.tried[action.kind]} times")
            if box.costs.get(action.kind, 0.0) >= PER_RUNG:
                raise Breach(f"{action.kind} is tried again, and has cost ${box.costs[action.kind]:.2f}")
        if action.kind in decide.RUNGS or action.kind in decide.BRINGING_UP:
            box.rung = action.kind if action.kind in decide.RUNGS else ""
            if box.failed_home:
                raise Breach("a failed run whose remains are home is brought up again")
        effects: dict[str, Callable[[], None]] = {
            decide.RENT: self._rent,
            decide.SAME_MACHINE: self._rent_beside_the_volume,
            decide.NEXT_OFFER: self._rent_elsewhere,
            decide.NEXT_CANDIDATE: self._hand_over,
            decide.START: self._start,
            decide.RESTART: self._start,
            decide.RAISE_BID: self._raise_bid,
            decide.HARVEST: self._harvest,
            decide.HARVEST_FAILED: self._harvest_failed,
            decide.PULL: self._pull,
            decide.PARK: self._park,
            decide.SETTLE: self._settle,
        }
        known = {decide.WAIT, decide.GIVE_UP, decide.FINISH, decide.BILLS_ON, *effects}
        if action.kind not in known:
            raise Breach(f"{action.kind} is no reversible action: only a person's approval and the gate end a box")
        effects.get(action.kind, lambda: None)()

    def _rent(self) -> None:
        """The playbook asks the provider itself, and rents nothing where it does not answer."""
        box = self.box
        if not self.ledger.has_room:
            raise Breach(f"rented at ${self.ledger.spent:.2f} of ${BUDGET}, others at ${self.ledger.others_spent:.2f}")
        if self.ledger.home or self._looked == "done":
            raise Breach("a finished run is run again")
        if any(one.works for one in self.boxes):
            raise Breach("a second box was rented while the first one trains")
        if box.state != "absent" and not box.rests:
            raise Breach("a box is rented beside one that nothing but its end stops")
        if not (self.provider_up and self.network_up and self.ssh_up):
            return
        if box.state != "absent":
            box.olds.append(Old(self.now + DUE_STEPS))
        box.state, box.deployed, box.run, box.at_risk, box.parked = "running", True, "queued", 0, False
        box.rented = box.brought_up = True
        box.salvaged, box.absences = False, 0

    def _rent_elsewhere(self) -> None:
        if self.box.bound:
            raise Breach("another machine was rented, and the volume is not there")
        self._rent()

    def _rent_beside_the_volume(self) -> None:
        if not self.box.bound:
            raise Breach("the machine that the box was lost on is rented again, for no volume")
        if self.box.state == "offline":
            raise Breach("a machine is rented whose host is lost")
        self._rent()

    def _hand_over(self) -> None:
        """What is left behind is told to stop first, so that it neither bills on nor trains beside the next."""
        box = self.box
        if len(self.boxes) < 2:
            raise Breach("there is no other candidate")
        if box.state != "absent":
            self._rest("left billing for the next candidate")
        self.boxes.append(self.boxes.pop(0))
        self.box.forget(self.now)

    def _start(self) -> None:
        box = self.box
        if self.ledger.home or self._looked == "done":
            raise Breach("a finished run is run again")
        if not (self.provider_up and self.network_up and self.ssh_up) or box.state == "absent":
            return
        if box.state in ("stopped", "exited", "outbid", "running"):
            box.state, box.deployed, box.parked = "running", True, False
            box.run = "queued" if box.run in ("", "preempted", "queued") else box.run
        box.brought_up = True

    def _raise_bid(self) -> None:
        if self.box.bid_is_told and not self.box.bid_fits:
            raise Breach("a bid is raised above the cap")
        if self.box.bid_fits:
            self._start()

    def _harvest(self) -> None:
        """The results come home, and the box is stopped after that, if nobody cuts the harvest off in between."""
        box = self.box
        if not self._comes_home("done"):
            return
        self.ledger.home = True
        box.cut_off, self.cuts_harvest = self.cuts_harvest and box.rests, False
        if box.rests and not box.cut_off:
            box.state = "stopped"

    def _comes_home(self, how: str) -> bool:
        box, is_heard = self.box, self.network_up and self.ssh_up and not self.harvests_fail
        is_home = is_heard and box.state == "running" and box.run == how
        box.harvests = 0 if is_home else box.harvests + 1
        return is_home

    def _harvest_failed(self) -> None:
        box = self.box
        if self._comes_home("failed"):
            box.failed_home = True
            box.state = "stopped" if box.rests else box.state

    def _pull(self) -> None:
        self.box.salvaged = True
        if self.network_up and self.ssh_up and self.box.state == "running":
            self.box.at_risk = 0

    def _park(self) -> None:
        if self.provider_up and self.network_up:
            self._rest("parked")

    def _rest(self, how: str) -> None:
        if not self.box.rests:
            raise Breach(f"a box that cannot rest is {how}")
        self.box.parked = True
        self.world("outbid" if self.box.state == "outbid" else "stopped")

    def _settle(self) -> None:
        if self.provider_up and self.network_up:
            for old in self.box.olds:
                old.settled = True

    def _pass_time(self) -> None:
        reachable = self.reachable
        is_shown = self.provider_up and self.network_up and not self.denied
        self.now += 1
        self.denied_looks, self.denied_alone = max(self.denied_looks - 1, 0), 0
        if sum(one.works for one in self.boxes) > 1:
            raise Breach("two boxes train the same run")
        for box in self.boxes:
            self._bill(box)
            self._check_dues(box, reachable)
            self._check_spent(box, is_shown and box is self.box, reachable)

    def _bill(self, box: Box) -> None:
        if box.state != "running":
            return
        self.ledger.spent += PRICE_OF_A_STEP
        if box.rung:
            box.costs[box.rung] = box.costs.get(box.rung, 0.0) + PRICE_OF_A_STEP

    def _check_spent(self, box: Box, is_shown: bool, reachable: bool) -> None:
        """What is done, or failed, comes home first, if it can be brought there; what cannot rest is people's to
        end."""
        comes_home = reachable and box.run in ("done", "failed") and box.harvests < decide.HARVESTS
        is_ending = self.ledger.home or comes_home
        may_bill = box.state == "running" or box.comes_back
        is_wrong = box.rests and may_bill and self._money().is_spent and not is_ending
        box.spends = box.spends + is_shown if is_wrong else 0
        if box.spends > OVERDUE_STEPS:
            raise Breach("the budget is spent, and a box computes on")

    def _check_dues(self, box: Box, reachable: bool) -> None:
        for old in box.olds:
            if not reachable or box.state == "offline":
                # Nobody can act now, or hear the box that took its place; the deadline moves on by what was lost.
                old.due_at += 1
            if not old.settled and self.now > old.due_at:
                raise Breach("a replaced box was left past its deadline")
        is_due = box.state == "running" and (box.cut_off or (box.works and box.at_risk >= RPO_STEPS))
        box.overdue = box.overdue + reachable if is_due else 0
        if box.overdue > OVERDUE_STEPS:
            what = "a box whose results are home computes on" if box.cut_off else "work is at risk, and nobody pulls it"
            raise Breach(what)
        box.at_risk += box.works
