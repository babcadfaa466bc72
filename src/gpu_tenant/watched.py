# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One run that ``watch`` looks after: on which box it works, what is seen of it, and what would be lost now.

All of it is read from the state store, the provider and the box; what a process remembers beyond that only saves it a
second look.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import last_contact, supersession
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import load_run_spec
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore

from gpu_tenant import decide, recoveries, recovering
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observe import Observation
from gpu_tenant.sight import Sight
from gpu_tenant.verdicts import LedgerWord

PULLED = "pull"
DEFAULT_RPO_S = 600.0
# A pull that takes long is repeated no sooner than after this many times its own duration.
PULL_SHARE = 3.0
# A replaced box that the gate keeps is tried again no sooner than this.
SETTLE_AGAIN_S = 3600.0


@dataclass(frozen=True)
class Risk:
    """What would be lost if box and disk vanished now; None is unknown, or nothing at work."""

    seconds: float | None = None
    usd: float | None = None


class Watched:
    """:param boxes: those that can do the work, in their order; the first one does it.

    :param spec_path: of the run; empty for a box that is only looked at.
    """

    def __init__(self, boxes: Sequence[BoxHost], spec_path: str, clock: Callable[[], float] = time.time) -> None:
        self.boxes = list(boxes)
        self.spec_path = spec_path
        self.spec: Mapping[str, Any] = {}
        self._clock = clock
        self.failures = 0
        self.not_before = 0.0
        self.settled_at = 0.0
        self.pull_took_s = 0.0
        self.salvaged = False
        self._pulled_at = ""
        self.seen: Observation | None = None
        self.situation: decide.Situation | None = None
        self.action: decide.Action | None = None
        self.refresh()
        self.sight = self._sight_of_box()

    @property
    def box(self) -> BoxHost:
        return self.boxes[0]

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

    def refresh(self) -> None:
        """Read the run spec again: what is acted on is what the playbook will read."""
        if self.spec_path:
            self.spec = load_run_spec(os.path.expanduser(self.spec_path))

    def _sight_of_box(self) -> Sight:
        return Sight(self._clock, brought_up=bool(self._record().get("deploy_started_at")))

    def _record(self) -> dict[str, Any]:
        """The newest machine of the box that is not known to be gone; empty when there is none."""
        generation = self.store.last_generation(self.project, self.box.name)
        record = (self.store.read_box(self.project, self.box.name, generation) if generation else None) or {}
        return {} if record.get("destroyed_at") or not record.get("provider_id") else record

    def choose(self, seen: Mapping[str, Observation]) -> None:
        """The candidate that works goes first, then one that is rented; one that was given up lately goes last."""
        if len(self.boxes) < 2:
            return
        lines, now = Journal(self.store).lines(), records.utc_now()

        def place(box: BoxHost) -> tuple[bool, bool, bool]:
            left = recoveries.tried(lines, self.project, box.name, now).next_candidate > 0
            state = seen[box.name].provider
            return left, state != "running", state in ("absent", "unreachable")

        self.boxes.sort(key=place)
        self.sight = self._sight_of_box()

    def next_candidate(self) -> None:
        self.boxes.append(self.boxes.pop(0))
        self.sight, self.salvaged = self._sight_of_box(), False

    def take(self, seen: Observation) -> None:
        """Add a look, and what it says of the run to what would be missed if the box never came back."""
        self.seen = seen
        self.sight.take(seen)
        if seen.item is not None and seen.run is not None:
            identity = BoxIdentity(self.project, self.box.name, seen.generation, seen.item.provider_id)
            last_contact.note(self.store, identity, last_contact.of_status([seen.run.raw]))

    def judge(self, outage: str) -> decide.Action:
        """What to do now, by all that is known."""
        assert self.seen is not None
        receipts = self._receipts()
        home = any(one.get("complete") is True for one in receipts)
        ledger = LedgerWord(home=home, rented=bool(self._record()) or self.sight.brought_up)
        case = recovering.Case(self.box, self.spec, self.sight, self.seen, ledger)
        journal = Journal(self.store)
        # Read once for a look: it grows with every act on every box.
        lines = journal.lines()
        self._pulled_at = self._last_pull(lines)
        self.situation = replace(
            recovering.situation(case, journal, lines),
            outage=outage,
            spare=len(self.boxes) > 1,
            failed_home=not home and self._has_failed(receipts),
            salvaged=self.salvaged,
            pull_due=self._pull_is_due(),
            settle_due=self._settle_is_due(),
        )
        self.action = decide.decide(self.situation) if self.is_wanted else self._unwanted()
        return self.action

    def _unwanted(self) -> decide.Action:
        assert self.situation is not None
        why = "it is declared parked" if self.spec else "no run is named for it"
        if self.situation.settle_due:
            return decide.decide(replace(self.situation, home=True))
        return decide.Action(decide.WAIT, f"{why}; {self.situation.verdict.why}")

    def _receipts(self) -> list[dict[str, Any]]:
        if not self.run_id:
            return []
        found = [records.read_record(path, "receipt") for path in self.store.receipts(self.project, self.run_id)]
        return [one for one in found if one.get("spec_sha256") == self.spec["spec_sha256"]]

    def _has_failed(self, receipts: Iterable[Mapping[str, Any]]) -> bool:
        """Whether the machine that is there now holds a failed run of this very spec, and its remains came home."""
        generation = self.store.last_generation(self.project, self.box.name)
        place = (self.box.name, generation, "failed")
        at_work = self.sight.box.run_state in ("running", "queued")
        told = [(one.get("box"), one.get("generation"), one.get("run_state")) for one in receipts]
        return place in told and not at_work

    # --- work at risk ---------------------------------------------------------------------------------------------

    @property
    def rpo_s(self) -> float:
        """How much work may be at risk, in seconds (``tenant_rpo_s``); 0 never pulls."""
        return float(self.box.text("tenant_rpo_s", str(DEFAULT_RPO_S)))

    def risk(self) -> Risk:
        seconds = self._at_risk_s()
        price = self.seen.item.dph_total if self.seen and self.seen.item else None
        return Risk(seconds, None if seconds is None or price is None else seconds / 3600.0 * price)

    def _at_risk_s(self) -> float | None:
        """Seconds of training since the last checkpoint that outlives the box."""
        run = self.seen.run if self.seen else None
        if run is None or run.state != "running":
            return None
        cells = [cell for cell in run.raw.get("cells") or [] if isinstance(cell, Mapping)]
        cell: Mapping[str, Any] = next((each for each in cells if each.get("state") == "running"), {})
        running_s = _number(cell.get("running_s"))
        if self.box.text("platform_durable_kind", "pull") != "pull":
            return _number((cell.get("last_checkpoint") or {}).get("age_s")) or running_s
        pulled = self._pulled_s_ago()
        known = [each for each in (running_s, pulled) if each is not None]
        return min(known) if known else self.sight.box.unchanged_s

    def _last_pull(self, lines: Iterable[Mapping[str, Any]]) -> str:
        """When the last pull began, UTC text: what was saved later did not come along. Empty without one."""
        ours = [
            str(line.get("began_at"))
            for line in lines
            if line.get("verb") == PULLED and line.get("kind") == "effect"
            if (line.get("project"), line.get("box"), line.get("run_id")) == (self.project, self.box.name, self.run_id)
        ]
        return ours[-1] if ours else ""

    def _pulled_s_ago(self) -> float | None:
        if not self._pulled_at:
            return None
        span = (records.parse_utc(records.utc_now()) - records.parse_utc(self._pulled_at)).total_seconds()
        return max(0.0, float(span))

    def _pull_is_due(self) -> bool:
        if self.rpo_s <= 0 or self.box.text("platform_durable_kind", "pull") != "pull":
            return False
        at_risk = self._at_risk_s()
        return at_risk is not None and at_risk >= max(self.rpo_s, PULL_SHARE * self.pull_took_s)

    def _settle_is_due(self) -> bool:
        """Whether a machine that this one replaced is past its deadline, and was not dealt with a moment ago."""
        if self.seen is None or self._clock() - self.settled_at < SETTLE_AGAIN_S:
            return False
        moments = [
            supersession.replaced_at(
                self.store, BoxIdentity(self.project, self.box.name, old.generation, old.provider_id)
            )
            for old in self.seen.superseded
        ]
        now = records.utc_now()
        return any(since is not None and supersession.is_overdue(since, now) for since in moments)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
