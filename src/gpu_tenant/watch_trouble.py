# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What goes wrong with a box that is watched, and how people are told of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import Box

from gpu_tenant import decide, verdicts
from gpu_tenant.watched import SETTLE_AGAIN_S, Watched

REFUSED = "refused"
# Act after act on the box does not succeed.
FAILING = "failing"
# A machine that was replaced outlives its deadline.
OVERDUE = "overdue"
# The kind of failure whose exit code tells each; of any other it is the one of the act.
_KINDS = {
    decide.HARVEST_FAILED: "training_failed",
    verdicts.UNREACHABLE: "unreachable",
    verdicts.ALERT: "unreachable",
    verdicts.STALLED: "training_failed",
    OVERDUE: "gate_refused",
}
# Acts, or none, that people hear of.
_ALERTING = (decide.GIVE_UP, decide.HARVEST_FAILED, decide.PARK, decide.BILLS_ON)


@dataclass(frozen=True)
class Trouble:
    """:param failure: kind of failure whose exit code tells it; empty where nothing says one."""

    reason: str
    text: str
    failure: str


def of(one: Watched, action: decide.Action) -> Trouble | None:
    """What people are told of a box that was looked at; None while nothing goes wrong."""
    reason, why = _reason(one, action), action.why
    if not reason and (overdue := one.overdue(by_s=SETTLE_AGAIN_S)):
        # Letting it go was tried since.
        reason, why = OVERDUE, _overdue_text(one.box.name, overdue)
    if not reason:
        return None
    text = f"{why}; nothing was destroyed" + _computes_on(one, action)
    return Trouble(reason, text, _KINDS.get(reason) or action.failure)


def _reason(one: Watched, action: decide.Action) -> str:
    """Empty while nothing goes wrong with the box that is at work."""
    assert one.situation is not None
    verdict = one.situation.verdict.name
    is_calm = action.kind == decide.PARK and not action.failure
    if action.kind in _ALERTING and not is_calm:
        return action.kind
    if action.kind == decide.WAIT and action.failure:
        return verdicts.UNREACHABLE if action.failure == "unreachable" else REFUSED
    if verdict in (verdicts.ALERT, verdicts.STALLED) or (verdict == verdicts.UNREACHABLE and one.sight.brought_up):
        return verdict
    idle = action.kind in (decide.WAIT, decide.FINISH)
    return FAILING if not idle and one.failures >= decide.Limits().restart else ""


def _computes_on(one: Watched, action: decide.Action) -> str:
    """Of a box that was given up: that it bills, and how it is stopped. People may be at work on it to see what is the
    matter, so it is theirs to stop until its budget is spent."""
    if action.kind != decide.GIVE_UP or one.situation is None or not one.situation.computes or one.situation.bills_on:
        return ""
    is_outbid = one.situation.verdict.name == verdicts.OUTBID
    how = "it comes back by itself and bills, unless it is stopped" if is_outbid else "it bills until it is stopped"
    return f", and {how} (gpu-tenant provision -l {one.box.name} -e tenant_state=parked)"


def _overdue_text(box: str, overdue: Sequence[Box]) -> str:
    return "; ".join(
        f"instance {old.provider_id} was replaced, is past its deadline and bills; where the gate keeps it, harvest it "
        f"or consent to its loss (gpu-tenant approve destroy {box} --generation {old.generation} --loss)"
        for old in overdue
    )
