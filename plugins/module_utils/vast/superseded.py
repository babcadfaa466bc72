# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What becomes of superseded boxes: they are told to stop at once, which loses nothing, and those whose deadline has
passed are ended where the gate lets them go.

Nothing here consents to anything: the end is :meth:`Account.destroy`, which asks the gate on records read then.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .. import approvals, gate, standstill, supersession
from ..box import records
from ..difference import DifferenceTracker
from ..failures import TenantFailure
from ..gate import STOPPED_STATES
from ..rental_account import DESTROY, GONE_WAIT_S, Passed, identity_of
from ..rented_box import Box
from .actions import Account

PARKED, ABSENT = "parked", "absent"
STATES = (PARKED, ABSENT)


@dataclass
class Old:
    """One superseded box, what was done to it, and why no more than that. ``before`` is the state it was found in."""

    box: Box
    before: str
    since: str | None
    due: str | None
    overdue: bool
    parked: bool = False
    gone: bool = False
    to_harvest: bool = False
    passed: Passed | None = None
    kept_because: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        return "absent" if self.gone else "stopped" if self.parked else self.box.state

    def words(self, name: str) -> str:
        """What people are told of it."""
        subject = f"{name}: instance {self.box.provider_id} of generation {self.box.generation} was replaced"
        if self.gone:
            return f"{subject} and is destroyed; the gate let it go"
        due = f", which was due by {self.due}" if self.overdue else f", by {self.due}" if self.due else ""
        why = f" ({'; '.join(self.kept_because)})" if self.kept_because else ""
        identity = identity_of(self.box)
        return (
            f"{subject}, is {self.state} and bills: harvest it{due}{why}; or consent to its loss: gpu-tenant approve "
            f"{DESTROY} {identity.box} --generation {identity.generation} --loss"
        )

    def as_result(self) -> dict[str, Any]:
        return {
            "provider_id": self.box.provider_id,
            "generation": self.box.generation,
            "machine_id": self.box.machine_id,
            "price_per_hour": self.box.dph_total,
            "state": self.state,
            "superseded_at": self.since,
            "due": self.due,
            "overdue": self.overdue,
            "to_harvest": self.to_harvest,
            "kept_because": "" if self.gone else "; ".join(self.kept_because),
            "gate": self.passed.as_result() if self.passed else None,
        }


def settle(account: Account, project: str, name: str, state: str, wait_s: float, check_mode: bool) -> dict[str, Any]:
    """What ``vast_superseded`` returns. What cannot be done to one box is told and keeps none of the others.

    :param state: ``parked`` to stop them; ``absent`` to end the overdue ones too, each through the gate.
    """
    account.read_only = check_mode
    found = account.locate(project, name)
    now = records.utc_now()
    olds = [_old(account, box, now) for box in found.superseded]
    for old in olds:
        if _may_be_parked(old, found.all[0].generation):
            _park(account, old, wait_s, check_mode)
        if old.overdue:
            old.to_harvest = old.state in STOPPED_STATES and not _is_home(account, old.box)
            if state == ABSENT:
                _end(account, old, wait_s, check_mode)
    tracker = DifferenceTracker()
    for old in olds:
        after = "absent" if old.gone else "told to stop" if old.parked else old.before
        tracker.compare(old.box.provider_id, old.before, after)
    return dict(tracker.as_result(), boxes=[old.as_result() for old in olds], told=[old.words(name) for old in olds])


def _old(account: Account, box: Box, now: str) -> Old:
    identity = identity_of(box)
    since = supersession.replaced_at(account.store, identity)
    if since is None:
        return Old(box, box.state, since=None, due=None, overdue=False)
    due, overdue = supersession.due_at(since), supersession.is_overdue(since, now)
    return Old(box, box.state, since=records.utc_text(since), due=due, overdue=overdue)


def _may_be_parked(old: Old, newest: int) -> bool:
    """A second box of one generation never did any work; an older one goes on until its successor is admitted."""
    if old.since or old.box.generation == newest:
        return True
    old.kept_because.append("its successor has not been admitted yet")
    return False


def _park(account: Account, old: Old, wait_s: float, check_mode: bool) -> None:
    # A host that is away cannot obey, and its box, told already, rests when it comes back: nobody waits for that.
    is_told = old.box.state == "offline" and old.box.intended == "stopped"
    if is_told or not account.must_stop(old.box):
        return
    try:
        if not check_mode:
            stopped, _passed = account.stop(old.box, wait_s)
            if stopped is not None:
                old.box = stopped
    except TenantFailure as failure:
        old.kept_because.append(f"it could not be stopped: {failure.what}")
        return
    old.parked = True


def _end(account: Account, old: Old, wait_s: float, check_mode: bool) -> None:
    # The gate's exception goes by what is known of it; nobody asked for its end, so it is looked into first.
    if old.to_harvest and not approvals.find(account.store, identity_of(old.box), DESTROY):
        old.kept_because.append("it may hold what is not home, and nobody approved its end")
        return
    try:
        if check_mode:
            old.passed = account.pass_gate(old.box, DESTROY)
        else:
            old.passed = account.destroy(old.box, max(wait_s, GONE_WAIT_S), why=f"superseded since {old.since}")
    except TenantFailure as failure:
        old.kept_because.append(failure.what)
        return
    old.gone, old.to_harvest = True, False


def _is_home(account: Account, box: Box) -> bool:
    """Whether all that a stopped box can hold is home, by copies re-read now: nothing was ever deployed on it, or it
    did not work after the last look and copies are as far as it was then."""
    keeps, view = account.kept_by(DESTROY), account.provider_view(box)
    evidence = gate.gather(account.store, identity_of(box), DESTROY, keeps, view)
    if not gate.why_not_virgin(evidence):
        return True
    return not (standstill.why_not_still(evidence) or supersession.gaps(evidence))
