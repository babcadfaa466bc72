# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A small model of provider, box, network and ledger, in which a decision is played out step by step.

It knows the truth that the witnesses only tell in part: whether a box is really gone, whether its run is finished, what
was spent. Every breach of a law raises at the moment when it happens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gpu_tenant import decide, verdicts
from gpu_tenant.decide import Action, Costs, Money, Situation, Tried
from gpu_tenant.verdicts import BoxWord, LedgerWord, ProviderWord, Verdict

STEP_S = 300.0
BUDGET = 3.0
RESERVE = 0.5
PRICE_OF_A_STEP = 0.15
PER_RUNG = 0.3
# A superseded box is looked after at once, or as soon as the provider and the network let anybody.
DUE_STEPS = 3


class Breach(AssertionError):
    """A law was broken."""


@dataclass
class Ledger:
    """What our records say; it survives a kill of the runner."""

    home: bool = False
    rented: bool = False
    tried: dict[str, int] = field(default_factory=dict)
    spent: float = 0.0
    rung: str = ""
    costs: dict[str, float] = field(default_factory=dict)

    def note_training(self) -> None:
        self.tried.clear()
        self.costs.clear()
        self.rung = ""


@dataclass
class Old:
    """A machine that was replaced: it bills until it is dealt with."""

    due_at: int
    settled: bool = False


class Fleet:
    """One box among three. ``decision`` and ``judge`` are what is tested; mutants take their place."""

    def __init__(
        self,
        decision: Callable[[Situation], Action] = decide.decide,
        judge: Callable[[ProviderWord, BoxWord, LedgerWord], Verdict] = verdicts.verdict,
        outage: Callable[..., str] = verdicts.outage,
    ) -> None:
        self._decision, self._judge, self._outage = decision, judge, outage
        self.now = 0
        # the truth; a box with a volume can be rented on one machine only
        self.bound = False
        self.state = "absent"
        self.deployed = False
        self.run = ""
        self.olds: list[Old] = []
        # who is silent
        self.provider_up = True
        self.network_up = True
        self.ssh_up = True
        self.denied_looks = self.denied_alone = 0
        # what we know
        self.ledger = Ledger()
        self._forget()

    def _forget(self) -> None:
        self.absences = 0
        self.since = self.now
        self.told = ""
        self.brought_up = self.ledger.rented
        self.salvaged = False

    # --- what happens to the box ----------------------------------------------------------------------------------

    def world(self, state: str) -> None:
        """The provider's side changes: only a rented box can."""
        if self.state == "absent":
            return
        if state == "vanished":
            self.state, self.deployed, self.run = "absent", False, ""
        else:
            self.state = state
        if state != "running" and self.run == "running":
            self.run = "preempted"

    def train(self) -> None:
        if self.state == "running" and self.run in ("queued", "preempted", "running"):
            self.run = "running"
            self.ledger.note_training()

    def end_run(self, how: str) -> None:
        if self.state == "running" and self.run == "running":
            self.run = how

    def deny(self, looks: int, alone: bool) -> None:
        """The provider forgets the box for a while: all boxes at once, or this one for a single look. Of one box alone
        its word counts when it was given twice, and so it is only given once here when it is wrong."""
        if alone and self.absences == 0 and not self.denied_looks:
            self.denied_alone = 1
        elif not alone and not self.denied_alone and self.absences == 0:
            self.denied_looks = min(looks, verdicts.OUTAGE_ABSENCES - 1)

    @property
    def denied(self) -> bool:
        return bool(self.denied_looks or self.denied_alone)

    def kill_the_runner(self) -> None:
        self._forget()

    # --- looking and acting ---------------------------------------------------------------------------------------

    def words(self) -> tuple[ProviderWord, BoxWord, LedgerWord]:
        if not (self.provider_up and self.network_up):
            provider = "unreachable"
        else:
            provider = "absent" if self.denied else self.state
        self.absences = self.absences + 1 if provider == "absent" else 0
        contact = "not_tried"
        if provider == "running":
            contact = "answered" if self.deployed else "no_supervisor"
            contact = contact if self.ssh_up else "unreachable"
        run = self.run if contact == "answered" else ""
        told = f"{provider}/{contact}/{run}"
        if told != self.told:
            self.told, self.since = told, self.now
        if run:
            self.brought_up = True
        unchanged = (self.now - self.since) * STEP_S
        return (
            ProviderWord(provider, unchanged_s=unchanged, absences=self.absences),
            BoxWord(contact, run, unchanged_s=unchanged),
            LedgerWord(self.ledger.home, self.ledger.rented),
        )

    def step(self) -> Action:
        """One look, one decision, its effect; then time passes."""
        provider, box, ledger = self.words()
        others = [self._of_other(name) for name in ("b", "c")]
        silent = verdicts.Silence("a", provider.state, box.contact, provider.absences)
        overdue = any(not old.settled for old in self.olds)
        situation = Situation(
            verdict=self._judge(provider, box, ledger),
            home=self.ledger.home,
            brought_up=self.brought_up,
            outage=self._outage([silent, *others] if self.brought_up else others),
            tried=Tried(**self.ledger.tried),
            money=Money(self.ledger.spent, BUDGET, RESERVE, per_rung=PER_RUNG, rungs=Costs(**self.ledger.costs)),
            replaceable=True,
            bound=self.bound,
            salvaged=self.salvaged,
            settle_due=overdue,
        )
        action = self._decision(situation)
        self._act(action)
        self._pass_time()
        return action

    def _of_other(self, name: str) -> verdicts.Silence:
        if not (self.provider_up and self.network_up):
            return verdicts.Silence(name, "unreachable", "not_tried")
        if self.denied_looks:
            return verdicts.Silence(name, "absent", "not_tried", self.absences)
        return verdicts.Silence(name, "running", "answered" if self.ssh_up else "unreachable")

    def _act(self, action: Action) -> None:
        if action.kind in decide.RUNGS:
            self.ledger.tried[action.kind] = self.ledger.tried.get(action.kind, 0) + 1
            if self.ledger.tried[action.kind] > decide.Limits().of(action.kind):
                raise Breach(f"{action.kind} was tried {self.ledger.tried[action.kind]} times")
            if self.ledger.costs.get(action.kind, 0.0) >= PER_RUNG:
                raise Breach(f"{action.kind} is tried again, and has cost ${self.ledger.costs[action.kind]:.2f}")
        if action.kind in decide.RUNGS or action.kind in decide.BRINGING_UP:
            self.ledger.rung = action.kind if action.kind in decide.RUNGS else ""
        effects: dict[str, Callable[[], None]] = {
            decide.RENT: self._rent,
            decide.SAME_MACHINE: self._rent_beside_the_volume,
            decide.NEXT_OFFER: self._rent_elsewhere,
            decide.START: self._start,
            decide.RESTART: self._start,
            decide.RAISE_BID: self._start,
            decide.HARVEST: self._harvest,
            decide.PULL: self._pull,
            decide.PARK: self._park,
            decide.SETTLE: self._settle,
        }
        known = {decide.WAIT, decide.GIVE_UP, decide.FINISH, decide.HARVEST_FAILED, decide.NEXT_CANDIDATE, *effects}
        if action.kind not in known:
            raise Breach(f"{action.kind} is no reversible action: only a person's approval and the gate end a box")
        effects.get(action.kind, lambda: None)()

    def _rent(self) -> None:
        """The playbook asks the provider itself, and rents nothing where it does not answer."""
        if self.ledger.spent + RESERVE > BUDGET + 1e-9:
            raise Breach(f"rented at ${self.ledger.spent:.2f} of ${BUDGET}")
        if self.ledger.home or self.run in ("done",):
            raise Breach("a finished run is run again")
        if self.state == "running" and self.deployed and self.run == "running":
            raise Breach("a second box was rented while the first one trains")
        if not (self.provider_up and self.network_up and self.ssh_up):
            return
        if self.state != "absent":
            self.olds.append(Old(self.now + DUE_STEPS))
        self.state, self.deployed, self.run = "running", True, "queued"
        self.ledger.rented = self.brought_up = True
        self.salvaged, self.absences = False, 0

    def _rent_elsewhere(self) -> None:
        if self.bound:
            raise Breach("another machine was rented, and the volume is not there")
        self._rent()

    def _rent_beside_the_volume(self) -> None:
        if not self.bound:
            raise Breach("the machine that the box was lost on is rented again, for no volume")
        if self.state == "offline":
            raise Breach("a machine is rented whose host is lost")
        self._rent()

    def _start(self) -> None:
        if self.ledger.home or self.run == "done":
            raise Breach("a finished run is run again")
        if not (self.provider_up and self.network_up and self.ssh_up) or self.state == "absent":
            return
        if self.state in ("stopped", "exited", "outbid", "running"):
            self.state, self.deployed = "running", True
            self.run = "queued" if self.run in ("", "preempted", "queued") else self.run
        self.brought_up = True

    def _harvest(self) -> None:
        if self.network_up and self.ssh_up and self.state == "running" and self.run == "done":
            self.ledger.home = True

    def _pull(self) -> None:
        self.salvaged = True

    def _park(self) -> None:
        if self.provider_up and self.network_up:
            self.world("stopped")

    def _settle(self) -> None:
        if self.provider_up and self.network_up:
            for old in self.olds:
                old.settled = True

    def _pass_time(self) -> None:
        reachable = self.provider_up and self.network_up and self.ssh_up and not self.denied
        self.now += 1
        self.denied_looks, self.denied_alone = max(self.denied_looks - 1, 0), 0
        if self.state == "running":
            self.ledger.spent += PRICE_OF_A_STEP
            if self.ledger.rung:
                self.ledger.costs[self.ledger.rung] = self.ledger.costs.get(self.ledger.rung, 0.0) + PRICE_OF_A_STEP
        for old in self.olds:
            if not reachable:
                # Nobody can act now; the deadline moves on by what was lost.
                old.due_at += 1
            if not old.settled and self.now > old.due_at:
                raise Breach("a replaced box was left past its deadline")
