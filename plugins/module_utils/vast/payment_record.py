# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Whether a box was paid ahead: ``prepaying`` and ``prepaid_at`` of its record, so that one generation is paid once.

``prepaying`` is written before a payment is sent. Whoever finds it and no deposit cannot tell whether that payment is
still on its way, and sends no other. A deposit that shows turns it into ``prepaid_at``, which stands for ever.
"""

from __future__ import annotations

from typing import Any

from .. import power_record
from ..box import records
from ..failures import TenantFailure
from ..rental_account import identity_of
from ..rented_box import Box
from ..state_store import StateStore


def paid_at(store: StateStore, box: Box) -> str:
    """When a deposit of this box was first known; empty when none ever was."""
    return str(_read(store, box).get("prepaid_at") or "")


def check_unpaid(store: StateStore, box: Box) -> None:
    """TenantFailure where a payment may have been sent before: another one is not consented to."""
    record = _read(store, box)
    if record.get("prepaid_at"):
        raise _refused(box, f"it was paid ahead at {record['prepaid_at']}")
    sent = record.get("prepaying")
    if sent:
        told = sent if isinstance(sent, dict) else {}
        raise _refused(
            box,
            f"${told.get('amount', '?')} were sent for it at {told.get('at', 'some moment')}, nobody knows how that "
            "ended, and no deposit shows",
        )
    # Without the record of its create, nobody knows what was paid for it before.
    if not record.get("created_at"):
        raise _refused(
            box, "this state store did not see it rented, so it cannot tell whether it was paid ahead before"
        )


def note_sending(store: StateStore, box: Box, amount: float) -> None:
    _note(store, box, prepaying={"amount": amount, "at": records.utc_now()})


def note_refused(store: StateStore, box: Box) -> None:
    """The provider said no: nothing was paid."""
    _note(store, box, prepaying=None)


def note_paid(store: StateStore, box: Box) -> None:
    """A deposit shows, or the provider says that it took the payment."""
    if not paid_at(store, box):
        _note(store, box, prepaid_at=records.utc_now(), prepaying=None)


def _read(store: StateStore, box: Box) -> dict[str, Any]:
    return power_record.read(store, identity_of(box)) or {}


def _note(store: StateStore, box: Box, **changes: Any) -> None:
    identity = identity_of(box)
    if power_record.read(store, identity) is not None:
        store.update_box(identity.project, identity.box, identity.generation, **changes)


def _refused(box: Box, why: str) -> TenantFailure:
    return TenantFailure(
        "provider",
        f"instance {box.provider_id} is not paid ahead by this call: {why}",
        box=box.stamp.box if box.stamp else "",
        safe="nothing more was sent; the box runs on demand",
        fix="look at its deposit in the provider's console, and pay there if there is none; one that shows is taken as "
        "it is when this is repeated",
    )
