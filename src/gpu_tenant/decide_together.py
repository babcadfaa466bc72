# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The boxes of a run that trains on all of them as one: what is done with one hangs on the others. Pure.

They start together or not at all (:mod:`node_group`), so a lost box is worth renting again only while the others can go
on with it. One that only lost its neighbours is started again with them; one that failed by itself ends the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpu_tenant import decide, verdicts
from gpu_tenant.decide import Action, Situation

# Playbooks that take all boxes which need them at once.
JOINT = (*decide.BRINGING_UP, decide.HARVEST)
_CAN_START = (verdicts.RUNNING, verdicts.ALERT, verdicts.STALLED, verdicts.STARTING)


@dataclass(frozen=True)
class Part:
    """One of the boxes.

    :param action: what would be done with it, were it alone.
    :param by_peers: its run failed because other boxes went away.
    :param wanted: it is declared to work.
    """

    box: str
    now: Situation
    action: Action
    by_peers: bool = False
    wanted: bool = True

    @property
    def is_brought_up(self) -> bool:
        return self.action.kind in decide.BRINGING_UP

    @property
    def has_finished(self) -> bool:
        return self.now.verdict.name == verdicts.FINISHED or self.now.home

    @property
    def has_ended(self) -> bool:
        """Nothing that is done to the others makes it train again."""
        failed = self.now.failed_home or (self.now.verdict.name == verdicts.FAILED and not self.by_peers)
        return failed or self.has_finished or self.action.kind == decide.GIVE_UP


def agreed(parts: Sequence[Part], missing: Sequence[str] = ()) -> list[Action]:
    """The next action of each of ``parts``, in their order.

    :param missing: boxes of the run that are not looked after beside these.
    """
    return [_of(part, [other for other in parts if other is not part], missing) for part in parts]


def _of(part: Part, others: Sequence[Part], missing: Sequence[str]) -> Action:
    action = part.action
    if action.kind == decide.HARVEST_FAILED and part.by_peers and not any(other.has_ended for other in others):
        again = decide.pushed(part.now)
        action = again if again.kind == decide.RESTART else action
    if action.kind not in decide.BRINGING_UP:
        return action
    return _held_back(action, others, missing) or action


def _held_back(action: Action, others: Sequence[Part], missing: Sequence[str]) -> Action | None:
    """What is done instead of bringing a box up that could not train; None where it could."""
    if missing:
        why = f"{action.why}; the run also needs {', '.join(missing)}, which this watch does not look after"
        return Action(decide.GIVE_UP, why, action.interruption, "config")
    ended = next((other for other in others if other.has_ended), None)
    if ended is not None:
        return Action(decide.GIVE_UP, f"{action.why}, and {_end_of(ended)}", action.interruption, _failure_of(ended))
    away = next((other for other in others if not _can_start(other)), None)
    if away is None:
        return None
    why = f"{action.why}; the boxes of the run start together, and {away.box} cannot"
    return Action(decide.WAIT, f"{why}: {'it is declared parked' if not away.wanted else away.action.why}")


def _can_start(part: Part) -> bool:
    return part.wanted and (part.is_brought_up or part.by_peers or part.now.verdict.name in _CAN_START)


def _end_of(part: Part) -> str:
    if part.has_finished:
        return f"{part.box} has finished the run, no part of which is run again"
    return f"the run has ended on {part.box}: {part.action.why}"


def _failure_of(part: Part) -> str:
    return part.action.failure or "training_failed"
