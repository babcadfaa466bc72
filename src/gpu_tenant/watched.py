# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One run that ``watch`` looks after: on which box it works, what is seen of it, and what would be lost now.

All of it is read from the state store, the provider and the box; what a process remembers beyond that only saves it a
second look.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import failure_class, records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import Box
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

from gpu_tenant import (
    candidates,
    decide,
    fleet,
    found_home,
    home_before,
    look_notes,
    money_ladder,
    parking,
    recovering,
    replaced,
)
from gpu_tenant.followed_spec import FollowedSpec
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation
from gpu_tenant.observe import as_failure
from gpu_tenant.pulls import PULL_SHARE
from gpu_tenant.risk import Risk, at_risk_s, keeps_by_pull, last_pull, priced, rpo_s
from gpu_tenant.sight import Sight
from gpu_tenant.verdicts import FAILED, FINISHED, LOST, UNREACHABLE, LedgerWord, Verdict

_TRUE = ("true", "yes", "on", "1")
# Of a box whose run has ended, or of which nobody hears whether it has.
_MAY_HAVE_ENDED = (FAILED, FINISHED, UNREACHABLE)
# A replaced box that the gate keeps is tried again no sooner than this.
SETTLE_AGAIN_S = 3600.0


class Watched:
    """:param boxes: those that can do the work, in their order; the first one does it.

    :param spec_path: of the run; empty for a box that is only looked at.
    """

    def __init__(self, boxes: Sequence[BoxHost], spec_path: str, clock: Callable[[], float] = time.time) -> None:
        self.boxes = list(boxes)
        self.spec_path = spec_path
        self.followed = FollowedSpec(spec_path, self._is_home)
        self.clock = clock
        # How often each kind of act failed since one last succeeded, and when it is tried again at the soonest.
        self._failed: dict[str, tuple[int, float]] = {}
        # How many harvests in a row did not bring home what ended on the box.
        self.harvests = 0
        self.settled_at = float("-inf")
        self.pull_took_s = 0.0
        self.nothing_came_at = -math.inf
        self.salvaged = False
        self.registered = home_before.Registered()
        # Whether what is home is of the spec before it was edited.
        self._is_home_before = False
        self._pulled_at = ""
        self._trouble: TenantFailure | None = None
        self.has_chosen = False
        self._undecided: TenantFailure | None = None
        self.seen: Observation | None = None
        self.situation: decide.Situation | None = None
        self.action: decide.Action | None = None
        # Onto another rung of the run's budget, until people were told.
        self.crossing: money_ladder.Crossing | None = None
        # What happens to the box by itself; None while nobody knows.
        self.countdowns: Sequence[Mapping[str, Any]] | None = None
        self.followed.read()
        self.sight = self._sight_of_box()

    @property
    def box(self) -> BoxHost:
        return self.boxes[0]

    @property
    def spec(self) -> Mapping[str, Any]:
        return self.followed.now

    @property
    def run_id(self) -> str:
        return str(self.spec.get("id") or "")

    @property
    def project(self) -> str:
        return self.box.required("tenant_project")

    @property
    def store(self) -> StateStore:
        return StateStore(self.box.required("tenant_state_dir"))

    @property
    def is_wanted(self) -> bool:
        return bool(self.spec) and self.box.text("tenant_state", "running") == "running"

    @property
    def failures(self) -> int:
        """How often what is to be done now has failed, since anything last succeeded."""
        return self._failed_so_far[0]

    @property
    def not_before(self) -> float:
        """When what is to be done now may be tried. A pull that failed as its box was lost holds up no recovery."""
        return self._failed_so_far[1]

    @property
    def _failed_so_far(self) -> tuple[int, float]:
        return self._failed.get(self.action.kind if self.action else "", (0, 0.0))

    def put_off(self, pause_s: float) -> None:
        """What was to be done has failed."""
        assert self.action is not None
        self._failed[self.action.kind] = (self.failures + 1, self.clock() + pause_s)

    def note_success(self) -> None:
        self._failed.clear()

    def note_act(self) -> None:
        """What was to be done was tried, however it went."""
        if self.action is not None and self.action.kind in (decide.HARVEST, decide.HARVEST_FAILED):
            self.harvests += 1

    def as_dict(self) -> dict[str, Any]:
        """What the next process needs to go on counting."""
        nothing_came_at = self.nothing_came_at if math.isfinite(self.nothing_came_at) else None
        return {
            **self.sight.as_dict(),
            "harvests": self.harvests,
            "nothing_came_at": nothing_came_at,
            "pull_took_s": self.pull_took_s,
            "registered": self.registered.as_dict(),
        }

    def remember(self, known: Mapping[str, Any]) -> None:
        """Go on from what an earlier process counted."""
        self.sight.remember(known)
        harvests = known.get("harvests")
        self.harvests = harvests if isinstance(harvests, int) and harvests > 0 else 0
        nothing_came_at = self.sight.moment_of(known, "nothing_came_at")
        self.nothing_came_at = -math.inf if nothing_came_at is None else nothing_came_at
        self.pull_took_s = max(records.finite(known.get("pull_took_s")) or 0.0, 0.0)
        self.registered = home_before.Registered.of(known.get("registered"))

    def _sight_of_box(self) -> Sight:
        try:
            brought_up = bool(self._record().get("deploy_started_at"))
        except Exception:
            # Something was rented, and judging it will say what is wrong with its record.
            brought_up = True
        return Sight(self.clock, brought_up)

    def _record(self) -> dict[str, Any]:
        return self.store.rented_box(self.project, self.box.name)

    def choose(self, seen: Mapping[str, Observation]) -> None:
        """Settle on the candidate that does the work, or say why that cannot be known from this look."""
        try:
            self._undecided = candidates.why_not_yet(self.boxes, seen)
            if len(self.boxes) > 1 and self._undecided is None:
                self.boxes = candidates.in_order(self.boxes, seen, Journal(self.store).lines(), records.utc_now())
                self.sight = self._sight_of_box()
        except Exception as error:
            self._undecided = as_failure(error, self.box.name)
        self.has_chosen = self._undecided is None

    def next_candidate(self) -> None:
        self.boxes.append(self.boxes.pop(0))
        self.sight, self.salvaged, self.harvests = self._sight_of_box(), False, 0
        self.registered = home_before.Registered()

    def take(self, seen: Observation) -> None:
        """Add a look."""
        self.seen, self._trouble = seen, seen.refused
        self.registered = self.registered.after(seen)
        try:
            self.sight.take(seen)
            look_notes.note(self.store, self.project, seen)
        except Exception as error:
            self._trouble = as_failure(error, self.box.name)

    @property
    def lost_its_peers(self) -> bool:
        """Whether its run failed for no other reason than that other boxes of the run went away."""
        run = self.seen.run if self.seen else None
        return run is not None and run.state == "failed" and run.failure in failure_class.OF_PEERS

    def read_clocks(self, known: fleet.Known, provider_now: float | None) -> None:
        is_seen = self.seen is not None and self.seen.provider != "unreachable"
        self.countdowns = fleet.countdowns(self.box, self.seen, known, provider_now) if self.seen and is_seen else None

    def judge(self, outage: str) -> decide.Action:
        """What to do now, by all that is known. What cannot be read here concerns no other box: nothing is done with
        this one, and people are told."""
        try:
            self.action = self._judged(outage)
        except Exception as error:
            return self._blind(as_failure(error, self.box.name))
        trouble = self.followed.trouble or self._undecided or self._trouble
        if trouble is not None and not (self.situation and self.situation.home):
            return self._blind(trouble)
        return self.action

    def _blind(self, trouble: TenantFailure) -> decide.Action:
        why = str(trouble).rstrip(".")
        self.situation = decide.Situation(Verdict(UNREACHABLE, why))
        self.action = decide.Action(decide.WAIT, why, failure=trouble.kind)
        return self.action

    def note_crossing(self) -> None:
        """People were told of it."""
        if self.crossing is not None and self.seen is not None:
            identity = recovering.identity_of(self.project, self.seen)
            money_ladder.note(Journal(self.store), identity, self.run_id, self.crossing)
            self.crossing = None

    def _judged(self, outage: str) -> decide.Action:
        assert self.seen is not None
        self._is_home_before = False
        action = self._decided(outage, self._receipts())
        if action.kind in home_before.HELD_BACK and (before := self._home_before(action)):
            return self._left_at_home(outage, before)
        if action.kind in decide.BRINGING_UP and (found := found_home.find(self.box, self.spec, self.seen)):
            return self._decided(outage, [dict(found.record)])
        return action

    def _home_before(self, action: decide.Action) -> Mapping[str, Any] | None:
        assert self.seen is not None
        any_box = action.kind == decide.RENT and not self.spec.get("parts")
        return home_before.find(self.box, self.spec, self._all_receipts(), self.seen, self.registered, any_box)

    def _left_at_home(self, outage: str, before: Mapping[str, Any]) -> decide.Action:
        """What ends the meter of a run that is home, and nothing that begins what its spec says since."""
        self._is_home_before = True
        action = self._decided(outage, [before])
        if action.kind != decide.FINISH:
            return action
        failure = home_before.failure_of(self.run_id)
        return decide.Action(decide.WAIT, f"{action.why}; {failure.what}", failure=failure.kind)

    def _decided(self, outage: str, receipts: Sequence[Mapping[str, Any]]) -> decide.Action:
        assert self.seen is not None
        complete = [one for one in receipts if one.get("complete") is True]
        home = bool(complete)
        rented = recovering.was_rented(self.store, self.project, self.box.name, self.sight)
        ledger = LedgerWord(home=home, rented=rented)
        case = recovering.Case(self.box, self.spec, self.sight, self.seen, ledger)
        journal = Journal(self.store)
        # Read once for a look: it grows with every act on every box.
        lines = journal.lines()
        self._pulled_at = last_pull(lines, self.project, self.box.name, self.run_id)
        self.situation = replace(
            recovering.situation(case, journal, lines),
            outage=outage,
            spare=len(self.boxes) > 1,
            left_running=self._was_left_running(complete),
            outlived=self._has_outlived_run(complete),
            failed_home=not home and self._has_failed(receipts),
            salvaged=self.salvaged,
            pull_due=self._pull_is_due(),
            settle_due=self._settle_is_due(),
        )
        if home:
            recovering.note_home(self.boxes, self.run_id)
        if home or self.situation.failed_home or self.situation.verdict.name not in _MAY_HAVE_ENDED:
            self.harvests = 0
        self.situation = replace(self.situation, harvests=self.harvests)
        # A run that is home ends no work any more, whatever its disk costs.
        money = self.situation.money
        self.crossing = None if home else money_ladder.crossing(lines, self.project, self.run_id, money)
        return decide.decide(self.situation) if self.is_wanted else self._unwanted()

    @property
    def idle_because(self) -> str:
        """Why no work is wanted there, in words."""
        return "it is declared parked" if self.spec else "no run is named for it"

    def _unwanted(self) -> decide.Action:
        assert self.situation is not None
        if self.situation.settle_due:
            return decide.decide(replace(self.situation, home=True))
        verdict = self.situation.verdict
        # Of what is lost it says that it is wanted, and here it is not.
        more = "" if verdict.name in LOST else f"; {verdict.why}"
        return decide.Action(decide.WAIT, self.idle_because + more)

    def _is_home(self) -> bool:
        """By its receipts of now: it may have come home since it was judged last."""
        judged = self.situation is not None and self.situation.home and not self._is_home_before
        return judged or any(one.get("complete") is True for one in self._receipts())

    def _all_receipts(self) -> list[dict[str, Any]]:
        """Of the run, whatever its spec was."""
        if not self.run_id:
            return []
        return [records.read_record(path, "receipt") for path in self.store.receipts(self.project, self.run_id)]

    def _receipts(self) -> list[dict[str, Any]]:
        of_spec = [one for one in self._all_receipts() if one.get("spec_sha256") == self.spec["spec_sha256"]]
        # Of a run that works on several boxes each has a share of its own to bring home.
        return [one for one in of_spec if one.get("box") == self.box.name] if self.spec.get("parts") else of_spec

    def _could_rest(self) -> bool:
        """Whether the machine that is there computes, and is to be stopped once its results are home."""
        assert self.seen is not None
        wants_rest = self.box.text("harvest_park", "true").lower() in _TRUE and self.box.text("platform_driver")
        if not wants_rest or not parking.can_rest(self.box) or self.seen.provider != "running":
            return False
        return bool(self.seen.generation == self._record().get("generation"))

    def _has_outlived_run(self, complete: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a machine that this one replaced brought the results home, while this one computed as it does now."""
        assert self.seen is not None
        ours = [one for one in complete if one.get("box") == self.box.name]
        if not self._could_rest() or any(one.get("generation") == self.seen.generation for one in ours):
            return False
        return self._computes_since_before([str(one.get("verified_at")) for one in ours])

    def _was_left_running(self, complete: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the machine that brought its results home computes on, and was neither stopped nor started since."""
        assert self.seen is not None
        place = (self.box.name, self.seen.generation)
        verified = [str(one.get("verified_at")) for one in complete if (one.get("box"), one.get("generation")) == place]
        return self._could_rest() and self._computes_since_before(verified)

    def _computes_since_before(self, verified: Iterable[str]) -> bool:
        """Whether it runs since before results came home; one that a person has started again is left alone."""
        record = self._record()
        started = str(record.get("started_at") or record.get("created_at") or "")
        return not record.get("parked_at") and any(started < moment for moment in verified)

    def _has_failed(self, receipts: Iterable[Mapping[str, Any]]) -> bool:
        """Whether the machine that is there now holds a failed run of this very spec, and its remains came home."""
        generation = self.store.last_generation(self.project, self.box.name)
        place = (self.box.name, generation, "failed")
        at_work = self.sight.box.run_state in ("running", "queued")
        told = [(one.get("box"), one.get("generation"), one.get("run_state")) for one in receipts]
        return place in told and not at_work

    # --- work at risk ---------------------------------------------------------------------------------------------

    def risk(self) -> Risk:
        return priced(self.box, self._at_risk_s(), self.seen)

    def _at_risk_s(self) -> float | None:
        return at_risk_s(self.box, self.seen, self._pulled_at, self.sight.box.unchanged_s)

    def _pull_is_due(self) -> bool:
        most_s = rpo_s(self.box)
        if most_s <= 0 or not keeps_by_pull(self.box):
            return False
        every_s, at_risk = max(most_s, PULL_SHARE * self.pull_took_s), self._at_risk_s()
        # One that brought nothing home leaves as much at risk, and is not repeated at every look for that.
        return at_risk is not None and at_risk >= every_s and self.clock() - self.nothing_came_at >= every_s

    def _settle_is_due(self) -> bool:
        """Whether a machine that this one replaced is past its deadline, and was not dealt with a moment ago."""
        return self.clock() - self.settled_at >= SETTLE_AGAIN_S and bool(self.overdue())

    def overdue(self, by_s: float = 0.0) -> list[Box]:
        """Machines that this one replaced and that are past their deadline by so many seconds."""
        return replaced.overdue(self.seen, self.store, self.project, by_s) if self.seen else []
