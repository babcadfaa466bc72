# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The ends of ``go`` without results at home: what there is comes home, the box is stopped, and both are told as they
went. These steps have time of their own: nothing is left of the run's when its deadline has passed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from ansible_collections.tenant.gpu.plugins.module_utils.box import failure_class
from ansible_collections.tenant.gpu.plugins.module_utils.box.wording import duration
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

from gpu_tenant import decide, parking
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation
from gpu_tenant.play_deadlines import allowance_s
from gpu_tenant.playbooks import Outcome
from gpu_tenant.progress import Progress
from gpu_tenant.pulls import receipt_of

_SNAPSHOT = {"harvest_snapshot": True}
# The harvest of a run that failed seals its box, with all that lies there. That is a promise which the gate reads, so
# people take it back, and no program does so by itself.
_AGAIN = "run the same command again"
_UNSEALED = f"{_AGAIN} with -e deploy_unseal=true, for the harvest of a failed run seals its box"
_FIX = "read its run.log, correct the code or the spec, and"
# A box that computes still is failed at the first look of the same command, so only a start by hand helps there.
_TIME_FIX = (
    f"raise cell_timeout_s in the run spec (0 lifts it) and {_UNSEALED}: it resumes; where the box is not parked, or "
    "for the same time again: gpu-tenant train with -e deploy_unseal=true -e train_retry_failed=true"
)
_NOTHING = "nothing was pulled now; what was pulled before is at home"
# Whoever holds its lease looks after the box, and whoever asks to stop is told how it is as it is left.
OTHERS_ACT = ("lease_held", "interrupted")
# A playbook on the box, with extra variables, killed after so many seconds.
Play = Callable[[str, Mapping[str, Any], float], Outcome]


class Closing:
    def __init__(self, host: BoxHost, run_id: str, progress: Progress, play: Play) -> None:
        self._host = host
        self._run_id = run_id
        self._progress = progress
        self._play = play

    def deadline_passed(self, seen: Observation, deadline_s: float) -> NoReturn:
        if seen.contact == "answered" and seen.run is not None:
            pulled = self._pulled(seen)
        else:
            why = "the run had not begun there" if seen.contact == "answered" else "it did not answer"
            pulled = f"{why}, so {_NOTHING}"
        parked = "no box is rented" if seen.provider == "absent" else self._parked()
        raise TenantFailure(
            "budget",
            f"the deadline of {duration(deadline_s)} has passed and run {self._run_id} is not done",
            box=self._host.name,
            safe=f"{pulled}; {parked}",
            fix="raise deadline_s in the run spec and run the same command again: it continues",
        )

    def over_budget(self, action: decide.Action, seen: Observation) -> NoReturn:
        # One that runs may answer the playbook although it did not answer the look.
        runs = seen.provider == "running"
        pulled = self._pulled(seen) if runs else f"it is {seen.provider}, so {_NOTHING}"
        raise TenantFailure(
            action.failure,
            f"run {self._run_id} is not done and {action.why}",
            box=self._host.name,
            safe=f"{pulled}; {self._parked()}",
            fix="raise that budget (budget.usd in the run spec; the project's is tenant_budget_usd in the inventory) "
            "and run the same command again: it continues",
        )

    def given_up(self, failure: TenantFailure, seen: Observation) -> NoReturn:
        """Nobody looks after the box from here on, so one that computes is stopped."""
        if not parking.computes(self._host, seen.item):
            raise failure
        pulled = self._pulled(seen) if seen.contact == "answered" else ""
        raise _left_as(failure, pulled, self._parked())

    def never_began(self, failure: TenantFailure, seen: Observation) -> NoReturn:
        """The first bring-up did not succeed. A run that fails as it begins, by the word of its box, fails again until
        its code is another, so its box is given up. What was refused before, as by the smoke command here, may be
        mended in minutes: that box stays on for the next try, and for another run that is at work there."""
        if failure.kind == "training_failed" and seen.run_state in ("failed", "blocked"):
            self.given_up(failure, seen)
        if not parking.computes(self._host, seen.item):
            raise failure
        raise _left_as(failure, f"the box is on and {parking.bills_until(self._host)}")

    def run_failed(self, seen: Observation, project: str) -> NoReturn:
        """Bring home what there is, park the box, and say so."""
        state = seen.run_state
        self._progress.emit("failure", f"the run is {state}; bringing its logs home", seen.box)
        outcome = self._step("harvest", {"harvest_snapshot": state != "failed"})
        where = f"{self._host.text('tenant_results_dir')}/{project}/{self._run_id}/{seen.box}"
        left = (
            f"what it left is in {where}"
            if receipt_of(outcome, seen)
            else "nothing on the box was deleted; its logs are still there"
        )
        reason = f": {seen.run.reason}" if seen.run and seen.run.reason else ""
        raise TenantFailure(
            "training_failed",
            f"run {self._run_id} is {state}{reason}",
            box=seen.box,
            safe=f"{left}; {self._parked()}",
            fix=_fix_of(seen),
        )

    def drill_failed(self, failure: TenantFailure, seen: Observation) -> NoReturn:
        """The drill found that the run would not survive its first lost box: no hour of it is worth its price."""
        self._progress.emit("failure", f"nothing is trained: {failure.what}", failure.box)
        if not parking.computes(self._host, seen.item):
            raise failure
        raise _left_as(failure, self._parked())

    def _step(self, playbook: str, extra_vars: Mapping[str, Any]) -> Outcome:
        return self._play(playbook, extra_vars, allowance_s(playbook, self._host))

    def _pulled(self, seen: Observation) -> str:
        outcome = self._step("harvest", _SNAPSHOT)
        if outcome.ok:
            return "its newest checkpoints were pulled" if receipt_of(outcome, seen) else _NOTHING
        return f"its newest checkpoints could not be pulled ({_why(outcome)}): they are on the box alone"

    def _parked(self) -> str:
        """Stop the meter of compute reversibly; says how the box is left."""
        if not parking.can_rest(self._host):
            return f"the box bills on, for nothing but its end stops it: {parking.ends_by(self._host)}"
        outcome = self._step("provision", parking.PARKED)
        if outcome.ok:
            return "the box is parked: its disk is kept and bills"
        return f"the box could not be parked ({_why(outcome)}) and goes on billing"


def _fix_of(seen: Observation) -> str:
    """How a run that failed, or is blocked, is taken up again."""
    if seen.run and seen.run.failure == failure_class.TIMED_OUT:
        return _TIME_FIX
    return f"{_FIX} {_UNSEALED if seen.run_state == 'failed' else _AGAIN}"


def _left_as(failure: TenantFailure, *told: str) -> TenantFailure:
    """The failure itself, for its exit code may be that of a whole playbook; with how the box is left."""
    failure.safe = "; ".join(part for part in (failure.safe, *told) if part)
    return failure


def _why(outcome: Outcome) -> str:
    return outcome.as_failure().what
