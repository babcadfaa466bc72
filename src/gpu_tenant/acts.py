# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What ``watch`` has decided, done by playbooks, and noted in the journal and in the history of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal

from gpu_tenant import decide, parking, play_deadlines, recovering
from gpu_tenant.narrate import Narrator
from gpu_tenant.node_team import Team
from gpu_tenant.observe import Observer
from gpu_tenant.playbooks import Outcome, PlaybookRunner
from gpu_tenant.progress import Progress
from gpu_tenant.pulls import NOTHING_CAME, receipt_of
from gpu_tenant.risk import PULLED
from gpu_tenant.watched import Watched
from gpu_tenant.workspace import History


class Acts:
    """Every method raises a TenantFailure where a playbook did not succeed."""

    def __init__(self, runner: PlaybookRunner, observer: Observer, progress: Progress) -> None:
        self._runner, self._observer, self._progress = runner, observer, progress

    def perform(self, one: Watched) -> None:
        """What was decided for this box alone."""
        action = one.action
        assert action is not None
        assert one.seen is not None
        self._note_interruption(one, action)
        if action.kind in decide.BRINGING_UP:
            variables = self._begin_to_recover(one, action)
            self._play([one], "train", variables).raise_for_failure()
            self._note_brought_up(one)
        elif action.kind in (decide.PULL, decide.SETTLE):
            one.settled_at = one.clock() if action.kind == decide.SETTLE else one.settled_at
            if not self._pull(one) and action.kind == decide.PULL:
                self._progress.emit("warning", f"the pull {NOTHING_CAME}", one.box.name)
        elif action.kind == decide.HARVEST:
            self.harvest([one])
        elif action.kind == decide.HARVEST_FAILED:
            snapshot = one.seen.run_state != "failed"
            self._play([one], "harvest", {"harvest_snapshot": snapshot}).raise_for_failure()
        elif action.kind == decide.PARK:
            self._salvage(one)
            self._park(one).raise_for_failure()
        elif action.kind == decide.NEXT_CANDIDATE:
            left = parking.leave(one.box, one.seen, self._observer, lambda: self._park(one))
            recovering.begin(action, one.seen, one.store, one.project, one.run_id)
            if left:
                self._progress.emit("warning", f"it is left behind: {left}", one.box.name)
            one.next_candidate()

    def _note_interruption(self, one: Watched, action: decide.Action) -> None:
        assert one.seen is not None
        if action.interruption:
            facts = {"provider": one.seen.provider, "generation": one.seen.generation, "step": one.sight.step}
            self._history(one).append("interruption", box=one.box.name, why=action.why, **facts)

    def _begin_to_recover(self, one: Watched, action: decide.Action) -> dict[str, Any]:
        """What the playbook is told of the box; from here on it counts as tried."""
        assert one.seen is not None
        variables = recovering.variables_of(action, one.seen, one.store)
        recovering.begin(action, one.seen, one.store, one.project, one.run_id)
        return variables

    def _note_brought_up(self, one: Watched) -> None:
        one.sight.note_brought_up()
        one.salvaged = False

    def bring_up_together(self, team: Team, due: Sequence[Watched]) -> None:
        """The lost boxes alone are rented again, each by what its own ladder says; then all start together."""
        for one in due:
            assert one.action is not None
            self._note_interruption(one, one.action)
            variables = self._begin_to_recover(one, one.action)
            if variables:
                self._play([one], "provision", variables).raise_for_failure()
        self._play(team.members, "train", {}).raise_for_failure()
        for one in due:
            self._note_brought_up(one)

    def harvest(self, due: Sequence[Watched]) -> None:
        self._play(due, "harvest", {}).raise_for_failure()

    def _pull(self, one: Watched) -> bool:
        """Whether anything came home: only then what was at risk on the box is so no longer."""
        assert one.seen is not None
        began, began_at = one.clock(), records.utc_now()
        step = one.seen.run.step if one.seen.run else None
        outcome = self._play([one], "harvest", {"harvest_snapshot": True})
        outcome.raise_for_failure()
        one.pull_took_s, one.salvaged = one.clock() - began, True
        if receipt_of(outcome, one.seen) is None:
            one.nothing_came_at = one.clock()
            return False
        identity = recovering.identity_of(one.project, one.seen).as_dict()
        Journal(one.store).append("effect", PULLED, **identity, run_id=one.run_id, step=step, began_at=began_at)
        return True

    def _salvage(self, one: Watched) -> None:
        """Pull before a stop that keeps the disk: where that fails, what is there stays there, and the meter ends."""
        try:
            if not self._pull(one):
                text = "nothing was pulled before it is stopped: what it holds stays on its disk, which is kept"
                self._progress.emit("warning", text, one.box.name)
        except TenantFailure as failure:
            if failure.kind == "interrupted":
                raise
            text = f"its newest checkpoints could not be pulled ({failure.what}): they stay on its disk, which is kept"
            self._progress.emit("warning", text, one.box.name, kind=failure.kind)

    def _park(self, one: Watched) -> Outcome:
        return self._play([one], "provision", parking.PARKED)

    def _play(self, due: Sequence[Watched], playbook: str, extra_vars: Mapping[str, Any]) -> Outcome:
        """One playbook on the boxes of one run."""
        spec, boxes = due[0].spec, [one.box for one in due]
        variables = {"tenant_run": spec["source"], **extra_vars} if spec else dict(extra_vars)
        teller = Narrator(self._progress, self._history(due[0]))
        deadline_s = play_deadlines.for_all_s(playbook, boxes, spec)
        return replace(self._runner, watch=teller).run(
            playbook, [box.name for box in boxes], variables, deadline_s=deadline_s
        )

    def _history(self, one: Watched) -> History:
        return self._runner.workspace.history(one.project, one.run_id or "none")
