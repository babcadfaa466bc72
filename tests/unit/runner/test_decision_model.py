# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The decision, played out by hypothesis against a model of provider, boxes, network and ledger.

No reachable state rents beyond a budget, destroys, tries a rung without end or beyond its share of the money, bids
above the cap, runs a finished run again or brings a failed one up whose remains are home, rents beside a box that
trains, gives up while another candidate is left, parks or leaves behind what cannot rest, lets a box compute whose
results are home or whose budget is spent, lets work be at risk, or leaves a replaced box past its deadline. And each
law has a broken decision that is caught.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.purse import UNLIMITED
from fleet_model import Box, Breach, Fleet
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from gpu_tenant import decide, verdicts
from gpu_tenant.decide import Action, Money, Situation
from gpu_tenant.verdicts import BoxWord, LedgerWord, ProviderWord, Verdict

LOOKS = st.integers(1, 5)
# A market without a state of rest has no volumes either.
KINDS = ({}, {"bound": True}, {"rests": False})
BOUNDED = settings(
    max_examples=200, stateful_step_count=25, derandomize=True, deadline=None, database=None,
    phases=(Phase.generate,),
)  # fmt: skip
# Most are caught at once; what only a long ladder shows takes longer.
UNTIL_CAUGHT = settings(BOUNDED, max_examples=2000)


def machine_of(fleet: Callable[[], Fleet]) -> type[RuleBasedStateMachine]:
    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.fleet = fleet()

        @initialize(at_work=st.booleans(), kind=st.sampled_from(KINDS), spare=st.booleans(), shared=st.booleans())
        def begin(self, at_work: bool, kind: dict[str, bool], spare: bool, shared: bool) -> None:
            self.shared = shared
            self.fleet.boxes = [Box(**kind), *([Box()] if spare else [])]
            if at_work:
                self.fleet.step()
                self.fleet.train()

        @rule(looks=LOOKS)
        def look_and_act(self, looks: int) -> None:
            for _each in range(looks):
                self.fleet.step()

        @rule(state=st.sampled_from(["stopped", "exited", "loading", "scheduling", "offline"]), looks=LOOKS)
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

        @rule(how=st.sampled_from(["done", "failed"]), cut_off=st.booleans(), looks=LOOKS)
        def the_run_ends(self, how: str, cut_off: bool, looks: int) -> None:
            self.fleet.train()
            self.fleet.end_run(how)
            self.fleet.cuts_harvest = cut_off
            self.look_and_act(looks)

        @rule(how=st.sampled_from(["done", "failed"]), looks=LOOKS)
        def the_run_ends_and_no_harvest_brings_it_home(self, how: str, looks: int) -> None:
            self.fleet.harvests_fail = True
            self.the_run_ends(how, False, looks)

        @rule()
        def harvests_succeed_again(self) -> None:
            self.fleet.harvests_fail = False

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

        @rule(fits=st.booleans(), is_told=st.booleans(), looks=LOOKS)
        def the_box_is_outbid(self, fits: bool, is_told: bool, looks: int) -> None:
            self.fleet.box.bid_fits, self.fleet.box.bid_is_told = fits, is_told
            self.fleet.world("outbid")
            self.look_and_act(looks)

        @rule(left=st.sampled_from([0.0, 0.4, 2.0]))
        def the_project_spends_elsewhere(self, left: float) -> None:
            if self.shared:
                self.fleet.others_spend_until(left)

        @rule()
        def the_runner_is_killed(self) -> None:
            self.fleet.kill_the_runner()

    return Machine


def play(fleet: Callable[[], Fleet], bounded: settings = BOUNDED) -> None:
    run_state_machine_as_test(machine_of(fleet), settings=bounded)


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


def _only_what_trains_is_stopped_when_all_is_spent(now: Situation) -> Action:
    return decide.decide(replace(now, computes=False))


def _harvests_may_fail_for_ever(now: Situation) -> Action:
    return decide.decide(replace(now, harvests=0))


def _what_failed_may_bill(now: Situation) -> Action:
    return decide.decide(replace(now, computes=now.computes and not now.failed_home))


def _outbid_is_stopped(now: Situation) -> Action:
    return decide.decide(replace(now, computes=now.computes and now.verdict.name != verdicts.OUTBID))


def _no_project(now: Situation) -> Action:
    return decide.decide(replace(now, money=replace(now.money, project=UNLIMITED)))


def _every_box_can_rest(now: Situation) -> Action:
    return decide.decide(replace(now, bills_on=False))


def _whoever_is_left_may_bill_on(now: Situation) -> Action:
    action = decide.decide(replace(now, bills_on=False))
    return action if action.kind == decide.NEXT_CANDIDATE else decide.decide(now)


def _there_is_always_another_candidate(now: Situation) -> Action:
    return decide.decide(replace(now, spare=True))


def _candidates_are_forgotten(now: Situation) -> Action:
    return decide.decide(replace(now, spare=False))


def _every_machine_can_be_replaced(now: Situation) -> Action:
    return decide.decide(replace(now, replaceable=True))


def _every_bid_fits(now: Situation) -> Action:
    return decide.decide(replace(now, raise_fits=None))


def _a_failure_is_forgotten(now: Situation) -> Action:
    return decide.decide(replace(now, failed_home=False))


def _what_a_harvest_left_running_is_forgotten(now: Situation) -> Action:
    return decide.decide(replace(now, left_running=False))


def _never_pulls(now: Situation) -> Action:
    return decide.decide(replace(now, pull_due=False))


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
    "no budget of the project": lambda: Fleet(decision=_no_project),
    "a sick box computes on what is spent": lambda: Fleet(decision=_only_what_trains_is_stopped_when_all_is_spent),
    "harvests that fail are paid for without end": lambda: Fleet(decision=_harvests_may_fail_for_ever),
    "a box whose run failed is paid for without end": lambda: Fleet(decision=_what_failed_may_bill),
    "an outbid box is taken for stopped": lambda: Fleet(decision=_outbid_is_stopped),
    "what cannot rest is parked": lambda: Fleet(decision=_every_box_can_rest),
    "what cannot rest is left behind": lambda: Fleet(decision=_whoever_is_left_may_bill_on),
    "hands over to nobody": lambda: Fleet(decision=_there_is_always_another_candidate),
    "gives up before the next candidate": lambda: Fleet(decision=_candidates_are_forgotten),
    "rents beside what cannot rest": lambda: Fleet(decision=_every_machine_can_be_replaced),
    "bids above the cap": lambda: Fleet(decision=_every_bid_fits),
    "a failed run is brought up again": lambda: Fleet(decision=_a_failure_is_forgotten),
    "computes on when its results are home": lambda: Fleet(decision=_what_a_harvest_left_running_is_forgotten),
    "nothing is pulled": lambda: Fleet(decision=_never_pulls),
    "no deadline for replaced boxes": lambda: Fleet(decision=_no_deadline),
    "destroys without the gate": lambda: Fleet(decision=_destroys_what_is_home),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_decision_is_caught(broken: Callable[[], Fleet]) -> None:
    with pytest.raises(Breach):
        play(broken, UNTIL_CAUGHT)
