# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The decision, played out by hypothesis against a model of provider, box, network and ledger.

No reachable state rents beyond the budget, destroys, tries a rung without end or beyond its share of the money, runs a
finished run again, rents beside a box that trains, or leaves a replaced box past its deadline. And each law has a
broken decision that is caught.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from fleet_model import Breach, Fleet
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from gpu_tenant import decide, verdicts
from gpu_tenant.decide import Action, Money, Situation
from gpu_tenant.verdicts import BoxWord, LedgerWord, ProviderWord, Verdict

LOOKS = st.integers(1, 5)
BOUNDED = settings(
    max_examples=80, stateful_step_count=25, derandomize=True, deadline=None, database=None,
    phases=(Phase.generate,),
)  # fmt: skip


def machine_of(fleet: Callable[[], Fleet]) -> type[RuleBasedStateMachine]:
    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.fleet = fleet()

        @initialize(at_work=st.booleans(), bound=st.booleans())
        def begin(self, at_work: bool, bound: bool) -> None:
            self.fleet.bound = bound
            if at_work:
                self.fleet.step()
                self.fleet.train()

        @rule(looks=LOOKS)
        def look_and_act(self, looks: int) -> None:
            for _each in range(looks):
                self.fleet.step()

        @rule(state=st.sampled_from(["stopped", "outbid", "exited", "loading", "scheduling", "offline"]), looks=LOOKS)
        def the_box_is_lost(self, state: str, looks: int) -> None:
            self.fleet.world(state)
            self.look_and_act(looks)

        @rule(looks=LOOKS)
        def the_box_vanishes(self, looks: int) -> None:
            self.fleet.world("vanished")
            self.look_and_act(looks)

        @rule()
        def it_comes_back(self) -> None:
            self.fleet.world("running")

        @rule()
        def it_trains(self) -> None:
            self.fleet.train()

        @rule(how=st.sampled_from(["done", "failed"]), looks=LOOKS)
        def the_run_ends(self, how: str, looks: int) -> None:
            self.fleet.end_run(how)
            self.look_and_act(looks)

        @rule(who=st.sampled_from(["provider_up", "network_up", "ssh_up"]), looks=LOOKS)
        def an_outage(self, who: str, looks: int) -> None:
            setattr(self.fleet, who, False)
            self.look_and_act(looks)
            setattr(self.fleet, who, True)

        @rule(looks=LOOKS)
        def the_provider_denies_it_once(self, looks: int) -> None:
            self.fleet.train()
            self.fleet.deny(1, alone=True)
            self.look_and_act(looks)

        @rule(looks=LOOKS)
        def the_provider_denies_all_boxes(self, looks: int) -> None:
            self.fleet.train()
            self.fleet.deny(looks, alone=False)
            self.look_and_act(looks)

        @rule()
        def the_runner_is_killed(self) -> None:
            self.fleet.kill_the_runner()

    return Machine


def play(fleet: Callable[[], Fleet]) -> None:
    run_state_machine_as_test(machine_of(fleet), settings=BOUNDED)


def test_no_reachable_state_breaks_a_law() -> None:
    play(Fleet)


# --- broken decisions, each of which must be caught ---


def _one_absence_is_gone(provider: ProviderWord, box: BoxWord, ledger: LedgerWord) -> Verdict:
    return verdicts.verdict(replace(provider, absences=2 * provider.absences), box, ledger)


def _silence_is_death(provider: ProviderWord, box: BoxWord, ledger: LedgerWord) -> Verdict:
    if ledger.rented and not ledger.home and "unreachable" in (provider.state, box.contact):
        return Verdict(verdicts.GONE, "no answer")
    return verdicts.verdict(provider, box, ledger)


def _finished_is_forgotten(now: Situation) -> Action:
    if now.verdict.name == verdicts.FINISHED and not now.home:
        return Action(decide.RESTART, "again")
    return decide.decide(now)


def _no_budget(now: Situation) -> Action:
    return decide.decide(replace(now, money=Money()))


def _no_bound(now: Situation) -> Action:
    return decide.decide(replace(now, money=replace(now.money, per_rung=None)))


def _no_limit(now: Situation) -> Action:
    return decide.decide(replace(now, tried=decide.Tried()))


def _volumes_are_forgotten(now: Situation) -> Action:
    return decide.decide(replace(now, bound=False))


def _every_box_has_a_volume(now: Situation) -> Action:
    return decide.decide(replace(now, bound=True))


def _no_deadline(now: Situation) -> Action:
    return decide.decide(replace(now, settle_due=False))


def _destroys_what_is_home(now: Situation) -> Action:
    return Action("destroy", "it is home") if now.home else decide.decide(now)


BROKEN = {
    "one absence is gone": lambda: Fleet(judge=_one_absence_is_gone),
    "no freeze": lambda: Fleet(outage=lambda boxes: ""),
    "silence is death": lambda: Fleet(judge=_silence_is_death, outage=lambda boxes: ""),
    "a finished run is run again": lambda: Fleet(decision=_finished_is_forgotten),
    "no budget": lambda: Fleet(decision=_no_budget),
    "no bound on what a rung costs": lambda: Fleet(decision=_no_bound),
    "no limit on a rung": lambda: Fleet(decision=_no_limit),
    "volumes are left behind": lambda: Fleet(decision=_volumes_are_forgotten),
    "a bad machine is rented again": lambda: Fleet(decision=_every_box_has_a_volume),
    "no deadline for replaced boxes": lambda: Fleet(decision=_no_deadline),
    "destroys without the gate": lambda: Fleet(decision=_destroys_what_is_home),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_decision_is_caught(broken: Callable[[], Fleet]) -> None:
    with pytest.raises(Breach):
        play(broken)
