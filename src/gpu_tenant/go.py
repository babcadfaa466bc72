# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant go``: one run from nothing to verified results at home, over however many interruptions.

A loop of look, decide, act. Nothing is remembered between two invocations that is not read again from the provider,
the box and the state store, so the same command continues after it was killed at any point.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from ansible_collections.tenant.gpu.plugins.module_utils import approvals, gone_record
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.box.wording import duration
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore

from gpu_tenant import (
    candidates,
    closing,
    decide,
    found_home,
    homecoming,
    look_notes,
    money_ladder,
    parking,
    play_deadlines,
    recovering,
    replaced,
    verdicts,
)
from gpu_tenant.approve import Consent, give
from gpu_tenant.homecoming import GoResult
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation
from gpu_tenant.observe import Observer
from gpu_tenant.playbooks import Outcome, PlaybookFailed, PlaybookRunner
from gpu_tenant.progress import Progress, training_text
from gpu_tenant.pulls import NOTHING_CAME, Pulls, receipt_of
from gpu_tenant.sight import Sight
from gpu_tenant.workspace import History

# Failures that time or another offer may mend, while a box that was up is being brought up again.
PASSING = ("no_offer", "provider", "unreachable", "probe_refused", "lease_held")
NEXT_CANDIDATE = ("no_offer", "probe_refused")
MAX_FAILURES = 8
RETRY_FIRST_S = 5.0
RETRY_MOST_S = 120.0


@dataclass(frozen=True)
class GoOptions:
    """How ``go`` behaves. Seconds everywhere; ``approver`` empty means that boxes are kept after the harvest.

    :param drill: before the training, kill the run's command on the box and refuse to go on unless it resumes.
    """

    pull_every_s: float = 600.0
    poll_s: float = 2.0
    poll_most_s: float = 15.0
    deadline_s: float = 86400.0
    approver: str = ""
    reason: str = ""
    standing: bool = False
    drill: bool = False


@dataclass
class _Memory:
    """What this process saw; losing it costs a second look and nothing else."""

    sight: Sight
    pulls: Pulls
    failures: int = 0
    last_failure: TenantFailure | None = None
    salvaged: bool = False
    resume_pending: bool = False


class Go:
    """Drives one run on one of the candidate boxes, in their order."""

    def __init__(
        self,
        runner: PlaybookRunner,
        observer: Observer,
        spec: Mapping[str, Any],
        options: GoOptions,
        progress: Progress,
        history: History,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runner = runner
        self._observer = observer
        self._spec = spec
        self._options = options
        self._progress = progress
        self._history = history
        self._clock = clock
        self._boxes: list[BoxHost] = list(runner.inventory.boxes)
        self._memory = self._fresh_memory()
        self._replaced = replaced.Replaced(progress, clock)
        self._started = clock()
        # Boxes that the run was taken from, and that are rented still.
        self.left_behind: list[str] = []
        self.on_look: Callable[[Observation], None] = lambda seen: None

    @property
    def box(self) -> BoxHost:
        return self._boxes[0]

    @property
    def store(self) -> StateStore:
        return StateStore(self.box.required("tenant_state_dir"))

    @property
    def project(self) -> str:
        return self.box.required("tenant_project")

    @property
    def run_id(self) -> str:
        return str(self._spec["id"])

    def run(self) -> GoResult:
        """Until the results are home (and, with consent, the box is gone).

        :raises TenantFailure: with the exit code of DESIGN's table; ``training_failed`` after its logs came home.
        """
        self._refuse_parts()
        receipt = self.home()
        if receipt is not None:
            self._progress.emit("result", f"run {self.run_id} is home already: nothing is trained again", self.box.name)
            self._prefer(str(receipt.get("box", "")))
        else:
            self._choose_candidate()
            receipt = self._drive()
        recovering.note_home(self._boxes, self.run_id)
        return self._end(receipt)

    def _refuse_parts(self) -> None:
        """One box cannot bring a run home whose results lie on several: it would wait for the others for ever."""
        parts = [str(name) for name in self._spec.get("parts") or []]
        if len(parts) > 1:
            raise TenantFailure(
                "config",
                f"run {self.run_id} works on several boxes at once ({', '.join(parts)}), and go drives one",
                safe="nothing was rented",
                fix=f"give them to watch, or run the playbooks train and then harvest on all (-l {','.join(parts)})",
            )

    def _fresh_memory(self) -> _Memory:
        return _Memory(Sight(self._clock), Pulls(self._options.pull_every_s, self._clock))

    def home(self) -> Mapping[str, Any] | None:
        """The complete receipt of this very spec, or None."""
        return self.store.finished_receipt(self.project, self.run_id, str(self._spec["spec_sha256"]))

    def _prefer(self, name: str) -> None:
        self._boxes.sort(key=lambda box: box.name != name)

    def _choose_candidate(self) -> None:
        """By a look at all of them: the one that the run is on, else one that is rented, else the spec's first."""
        self._boxes = candidates.in_spec_order(self._boxes, self._spec, self._runner.inventory.declared)
        seen, rounds = self._observer.observe(self.run_id), 0
        while (blind := candidates.why_not_yet(self._boxes, seen)) is not None:
            if self._left_s() <= 0:
                raise blind
            self._progress.emit("wait", blind.what, self.box.name)
            pause = decide.back_off(rounds, self._options.poll_s, self._options.poll_most_s)
            self._runner.interrupts.wait(min(pause, self._left_s() + 1))
            seen, rounds = self._observer.observe(self.run_id), rounds + 1
        self._boxes = candidates.in_order(self._boxes, seen, Journal(self.store).lines(), records.utc_now())
        if len(self._boxes) > 1:
            others = ", ".join(box.name for box in self._boxes[1:])
            self._progress.emit("note", f"works on {self.box.name}; further candidates in this order: {others}")

    # -- the loop ------------------------------------------------------------------------------------------------

    def _drive(self) -> Mapping[str, Any]:
        while True:
            self._runner.interrupts.check()
            seen = self._look()
            receipt = self.home()
            action = decide.decide(self._situation(seen, receipt is not None))
            if action.kind == decide.FINISH and receipt is not None:
                return receipt
            if self._is_over(action):
                self._closing.deadline_passed(seen, self._options.deadline_s)
            if action.kind in decide.BRINGING_UP and (found := found_home.find(self.box, self._spec, seen)):
                self._progress.emit("note", str(found), self.box.name)
                return found.record
            self._act(action, seen)

    def _is_over(self, action: decide.Action) -> bool:
        """Whether the deadline has passed. A run that is done comes home all the same, in the time of a harvest."""
        more_s = play_deadlines.allowance_s("harvest", self.box) if action.kind == decide.HARVEST else 0.0
        return self._clock() - self._started > self._options.deadline_s + more_s

    @property
    def _closing(self) -> closing.Closing:
        return closing.Closing(self.box, self.run_id, self._progress, self._play)

    def _look(self) -> Observation:
        seen = self._observer.observe(self.run_id, [self.box.name])[self.box.name]
        self._memory.sight.take(seen)
        self._note_resumed(seen)
        look_notes.note(self.store, self.project, seen)
        self._replaced.tell(seen, self.store, self.project)
        self.on_look(seen)
        return seen

    def _situation(self, seen: Observation, home: bool) -> decide.Situation:
        sight = self._memory.sight
        rented = recovering.was_rented(self.store, self.project, self.box.name, sight)
        ledger = verdicts.LedgerWord(home=home, rented=rented)
        case = recovering.Case(self.box, self._spec, sight, seen, ledger)
        journal = Journal(self.store)
        lines = journal.lines()
        now = recovering.situation(case, journal, lines)
        if not home:
            self._tell_budget(seen, money_ladder.crossing(lines, self.project, self.run_id, now.money), journal)
        return replace(
            now,
            spare=len(self._boxes) > 1,
            salvaged=self._memory.salvaged,
            pull_due=self._memory.pulls.is_due,
            settle_due=self._replaced.is_due(seen, self.store, self.project),
        )

    def _tell_budget(self, seen: Observation, crossed: money_ladder.Crossing | None, journal: Journal) -> None:
        """That the run came onto another rung of its budget: once, over all starts."""
        if crossed is not None:
            self._progress.emit("warning" if crossed.is_up else "note", crossed.text(self.run_id), seen.box)
            money_ladder.note(journal, recovering.identity_of(self.project, seen), self.run_id, crossed)

    def _act(self, action: decide.Action, seen: Observation) -> None:
        if action.kind in decide.BRINGING_UP:
            self._bring_up(action, seen)
            return
        acts: dict[str, Callable[[], None]] = {
            decide.WAIT: lambda: self._wait(action, seen),
            decide.PULL: lambda: self._pull(seen),
            decide.SETTLE: lambda: self._pull(seen),
            decide.HARVEST: lambda: self._harvest(seen),
            decide.NEXT_CANDIDATE: lambda: self._hand_over(action, seen),
            decide.HARVEST_FAILED: lambda: self._closing.run_failed(seen, self.project),
            decide.PARK: lambda: self._closing.over_budget(action, seen),
            decide.BILLS_ON: lambda: self._closing.over_budget(action, seen),
            decide.GIVE_UP: lambda: self._give_up(action, seen),
        }
        acts[action.kind]()

    # -- waiting -------------------------------------------------------------------------------------------------

    def _wait(self, action: decide.Action, seen: Observation) -> None:
        if seen.run_state == "running":
            self._tell_training(seen)
        else:
            problem = f" ({seen.problem})" if seen.problem else ""
            self._progress.emit("wait", action.why + problem, seen.box)
        sight = self._memory.sight
        pause = decide.back_off(sight.quiet_rounds, self._options.poll_s, self._options.poll_most_s)
        sight.quiet_rounds += 1
        self._runner.interrupts.wait(min(pause, self._left_s() + 1))

    def _left_s(self) -> float:
        return max(self._options.deadline_s - (self._clock() - self._started), 0.0)

    def _tell_training(self, seen: Observation) -> None:
        run = seen.run
        if run is None:
            return
        known: dict[str, Any] = {
            "step": run.step,
            "steps": run.steps,
            "loss": run.loss,
            "steps_per_s": run.steps_per_s,
            "eta_s": run.eta_s,
            "at_risk_s": self._memory.pulls.at_risk_s if run.step is not None else None,
            "price_per_hour": seen.item.dph_total if seen.item else None,
        }
        known = {name: value for name, value in known.items() if value is not None}
        self._progress.emit("training", training_text(known) or "training begins", seen.box, **known)

    def _pull(self, seen: Observation) -> None:
        with self._memory.pulls.pulling() as succeeded:
            outcome = self._play("harvest", {"harvest_snapshot": True})
            came_home = outcome.ok and receipt_of(outcome, seen) is not None
            if came_home:
                succeeded()
        self._memory.salvaged = True
        if came_home:
            step = seen.run.step if seen.run else None
            self._history.append("pull", box=seen.box, step=step, generation=seen.generation)
            return
        failure = outcome.failure(seen.box)
        told = f"failed and will be repeated: {failure.what}" if failure else NOTHING_CAME
        self._progress.emit("warning", f"the periodic pull {told}", seen.box)

    # -- acting --------------------------------------------------------------------------------------------------

    def _bring_up(self, action: decide.Action, seen: Observation) -> None:
        if action.interruption:
            self._note_interruption(action, seen)
        else:
            self._progress.emit("note", action.why, seen.box)
        variables = {**self._drill_variables(), **recovering.variables_of(action, seen, self.store)}
        recovering.begin(action, seen, self.store, self.project, self.run_id)
        try:
            self._playbook("train", "bring up", variables, retry=self._memory.sight.brought_up)
        except TenantFailure as failure:
            if _drill_refused(failure):
                self._closing.drill_failed(failure, self._look())
            if self._memory.sight.brought_up or failure.kind in closing.OTHERS_ACT:
                raise
            if failure.kind not in NEXT_CANDIDATE or len(self._boxes) < 2:
                self._end_first_start(failure)
            left = self._told_to_stop(seen)
            if left is not None:
                self._next_candidate(failure.what, left)
            return
        if self._memory.failures == 0:
            memory = self._memory
            memory.sight.note_brought_up()
            memory.salvaged = False
            memory.pulls.training_begins()
            self._give_standing_approval()

    def _end_first_start(self, failure: TenantFailure) -> NoReturn:
        """One that the deadline has ended is not tried again in minutes, whatever it was at."""
        if self._left_s() <= 0:
            self._progress.emit("failure", failure.what, failure.box or self.box.name)
            self._closing.deadline_passed(self._look(), self._options.deadline_s)
        self._closing.never_began(failure, self._look())

    def _next_candidate(self, why: str, left: str) -> None:
        refused = self._boxes[0]
        gone_record.leave(self.store, self.project, refused.name)
        self._boxes.pop(0)
        self._memory = self._fresh_memory()
        if left:
            self.left_behind.append(refused.name)
        told = "; ".join(part for part in (why, left, f"trying {self.box.name} next") if part)
        self._progress.emit("warning", told, refused.name)

    def _told_to_stop(self, seen: Observation) -> str | None:
        """What is left behind here, once it was told to stop; None when nobody took the order, and it is decided anew.

        :raises TenantFailure: it was told again and again, or waiting does not help.
        """
        try:
            return parking.leave(self.box, seen, self._observer, self._park)
        except TenantFailure as failure:
            self._memory.failures += 1
            self._memory.last_failure = failure
            if failure.kind not in PASSING or self._memory.failures >= MAX_FAILURES:
                raise
            self._pause_after_failure(failure.what)
            return None

    def _park(self) -> Outcome:
        return self._play("provision", parking.PARKED, play_deadlines.allowance_s("provision", self.box))

    def _pause_after_failure(self, what: str) -> None:
        pause = decide.back_off(self._memory.failures - 1, RETRY_FIRST_S, RETRY_MOST_S)
        pause = min(pause, self._left_s() + 1) if self._left_s() > 0 else pause
        self._progress.emit("wait", f"{what}; again in {duration(pause)}", self.box.name)
        self._runner.interrupts.wait(pause)

    def _hand_over(self, action: decide.Action, seen: Observation) -> None:
        """The run goes on, on another box, from the newest checkpoint at home."""
        left = self._told_to_stop(seen)
        if left is None:
            return
        recovering.begin(action, seen, self.store, self.project, self.run_id)
        self._note_interruption(action, seen)
        self._next_candidate(action.why, left)

    def _give_up(self, action: decide.Action, seen: Observation) -> None:
        """Nothing that is left to try would help, or nobody may pay for it."""
        failure = self._memory.last_failure or TenantFailure(
            action.failure,
            f"run {self.run_id} cannot go on by itself: {action.why}",
            box=self.box.name,
            safe="nothing was destroyed, and its newest checkpoints at home are kept",
            fix="raise the price cap or the budget, or name a further candidate, then run the same command again",
        )
        self._closing.given_up(failure, seen)

    def _drill_variables(self) -> dict[str, Any]:
        """A run that trained on some box already has shown there what a drill would show."""
        return {"train_drill": True} if self._options.drill and not self._memory.sight.brought_up else {}

    def _note_interruption(self, action: decide.Action, seen: Observation) -> None:
        self._progress.emit("warning", f"interrupted: {action.why}", seen.box)
        if self._memory.resume_pending:
            return
        self._memory.resume_pending = True
        facts = {"provider": seen.provider, "generation": seen.generation, "step": self._memory.sight.step}
        self._history.append("interruption", box=seen.box, why=action.why, **facts)

    def _note_resumed(self, seen: Observation) -> None:
        if not self._memory.resume_pending or seen.run is None or seen.run.resumed_from is None:
            return
        if seen.run_state not in ("running", "done"):
            return
        self._memory.resume_pending = False
        step = seen.run.resumed_from
        self._history.append("resumed", box=seen.box, step=step, generation=seen.generation)
        self._progress.emit("note", f"training goes on from step {step}", seen.box)

    def _harvest(self, seen: Observation) -> None:
        """Bring a finished run home. A receipt that no further harvest would complete ends the loop."""
        allowance_s = play_deadlines.allowance_s("harvest", self.box)
        outcome = self._playbook("harvest", "harvest", {}, retry=True, allowance_s=allowance_s)
        receipt = receipt_of(outcome, seen) if outcome else None
        if receipt is None:
            return
        if receipt.get("run_state") == "done" and receipt.get("complete") is False:
            lacks = "; ".join(map(str, receipt.get("incomplete_because") or ["nobody knows why"]))
            failure = self._not_home(
                f"run {self.run_id} is done and was harvested, but its receipt is not complete: {lacks}",
                "mend what is named (for instance harvest_level), then run the same command again",
            )
            self._given_up(failure)
        wanted, found = str(self._spec["spec_sha256"]), str(receipt.get("spec_sha256"))
        if receipt.get("complete") is True and found != wanted:
            # The box is sealed under that spec: started again it would train nothing, and bill.
            raise self._not_home(
                f"what came home of run {self.run_id} is of the spec {found[:12]}, not of {wanted[:12]} as asked for",
                "to train the new spec on this box run the playbook train with -e deploy_unseal=true; "
                "else give the run another id, or the run spec as it was",
            )

    def _not_home(self, what: str, fix: str) -> TenantFailure:
        safe = "the box and all that came home are kept"
        return TenantFailure("evidence_missing", what, box=self.box.name, safe=safe, fix=fix)

    def _play(
        self, playbook: str, extra_vars: Mapping[str, Any], allowance_s: float | None = None, box: str = ""
    ) -> Outcome:
        """:param allowance_s: of a step that may take this long although the run's deadline is near or past."""
        variables = {"tenant_run": self._spec["source"], **extra_vars}
        most_s = play_deadlines.step_s(playbook, self.box, self._spec)
        deadline_s = min(max(self._left_s(), 60.0), most_s) if allowance_s is None else allowance_s
        return self._runner.run(playbook, [box or self.box.name], variables, deadline_s=deadline_s)

    def _playbook(
        self, playbook: str, what: str, extra_vars: Mapping[str, Any], retry: bool, allowance_s: float | None = None
    ) -> Outcome | None:
        """Run a playbook.

        :param retry: the run was at work before, and nobody sits beside it: a passing failure is waited out, up to
            ``MAX_FAILURES`` in a row; after that, and at once where waiting does not help, the box is given up.
        :returns: how it ended when it ended well, else None.
        """
        outcome = self._play(playbook, extra_vars, allowance_s)
        if outcome.ok:
            self._memory.failures, self._memory.last_failure = 0, None
            return outcome
        failure = outcome.failure(self.box.name)
        self._memory.failures += 1
        self._memory.last_failure = outcome.as_failure()
        passing = failure is not None and failure.kind in PASSING
        if retry and passing and self._memory.failures < MAX_FAILURES:
            self._pause_after_failure(f"{what} did not succeed ({failure.what if failure else ''})")
            return None
        if retry:
            self._given_up(self._memory.last_failure)
        raise self._memory.last_failure

    def _given_up(self, failure: TenantFailure) -> NoReturn:
        """Nobody looks after the box from here on, unless it is whoever holds its lease."""
        if failure.kind in closing.OTHERS_ACT:
            raise failure
        self._closing.given_up(failure, self._look())

    # -- the end -------------------------------------------------------------------------------------------------

    def _end(self, receipt: Mapping[str, Any]) -> GoResult:
        options = self._options
        home = homecoming.Homecoming(
            self._runner.inventory.boxes,
            self._observer,
            self._progress,
            self.run_id,
            options.approver,
            options.reason,
            self._teardown,
        )
        return home.end(receipt)

    def _teardown(self, host: BoxHost) -> None:
        self._runner.interrupts.check()
        self._play("teardown", {}, play_deadlines.OTHER_S, host.name).raise_for_failure()

    def _give_standing_approval(self) -> None:
        """Consent given on the command line before the run, for the generation that now does the work."""
        if not (self._options.standing and self._options.approver):
            return
        seen = self._observer.observe("", [self.box.name])[self.box.name]
        if seen.item is None:
            return
        identity = BoxIdentity(self.project, self.box.name, seen.generation, seen.item.provider_id)
        if not approvals.find(self.store, identity, "destroy"):
            reason = self._options.reason or f"standing approval for run {self.run_id}"
            ttl_s = min(int(self._left_s()) + 86400, approvals.MOST_TTL_S)
            consent = Consent(self._options.approver, reason, ttl_s, standing=True)
            give(self.store, identity, "destroy", consent, {})


def _drill_refused(failure: TenantFailure) -> bool:
    """Whether the drill itself said so, and not what comes before it (the smoke command, the inputs) or after."""
    if failure.kind != "training_failed" or not isinstance(failure, PlaybookFailed):
        return False
    return any(drill.status == "failed" for drill in failure.outcome.of(failure.box, "resume_drill"))
