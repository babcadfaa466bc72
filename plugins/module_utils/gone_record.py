# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""That a machine is gone: said to the journal, from which it costs nothing any more, and to its record, by which it is
rented no more and takes no room in a budget.

The journal comes first, so that whoever dies in between leaves an open record, and the next one says both again. A
provider may deny a machine that it shows later: one that nobody asked it to end is ``lost`` in its record, and counts
again as soon as it is seen. While its run waits for it, that is True; once the run goes on elsewhere, or is home,
:data:`LEFT`.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from . import accrual, power_record
from .box import records
from .journal import Journal
from .rented_box import Box
from .state_store import BoxIdentity, StateStore

LEFT = "left"


def note_gone(store: StateStore, identity: BoxIdentity, is_lost: bool = False) -> None:
    """The provider has said often enough that it does not have this machine.

    :param is_lost: nobody asked for its end, so that the work on it is wanted still.
    """
    if not _has_ended(store, identity):
        Journal(store).append("effect", accrual.SEEN_GONE, **identity.as_dict())
    record = power_record.read(store, identity)
    if record is not None and not record.get("destroyed_at"):
        _note(store, identity, destroyed_at=records.utc_now(), lost=True if is_lost else None)


def note_there(store: StateStore, box: Box, observed_at: str) -> None:
    """A machine that counted as lost is there all the same, and cost money all the while.

    :param observed_at: when the provider was asked, UTC text; a look from before it was denied says nothing.
    """
    stamp = box.stamp
    if stamp is None or box.is_leaving:
        return
    identity = BoxIdentity(stamp.project, stamp.box, stamp.generation, box.provider_id)
    record = power_record.read(store, identity) or {}
    if not record.get("lost") or observed_at <= str(record.get("destroyed_at")):
        return
    verb = power_record.SEEN_STOPPED if box.is_resting else power_record.SEEN_STARTED
    # A clock that was ahead may have written that it ended, which no line may precede that is to reopen it.
    last = max((str(act["at"]) for act in _acts(store, identity)), default="")
    since = max(str(record["destroyed_at"]), last)
    Journal(store).append("effect", verb, **identity.as_dict(), effective_at=since)
    _note(store, identity, destroyed_at=None, lost=None)


def lost_box(store: StateStore, project: str, name: str) -> dict[str, Any]:
    """The record of the newest machine of a box, where it is gone although nobody asked for its end; else empty."""
    generation = store.last_generation(project, name)
    record = (store.read_box(project, name, generation) if generation else None) or {}
    return record if record.get("lost") else {}


def is_missed(record: Mapping[str, Any]) -> bool:
    """Whether the machine of a record is lost, and its run waits for another in its place."""
    return record.get("lost") is True


def missed_box(store: StateStore, project: str, name: str) -> dict[str, Any]:
    """As :func:`lost_box`, as long as it is being recovered."""
    record = lost_box(store, project, name)
    return record if is_missed(record) else {}


def leave(store: StateStore, project: str, name: str) -> None:
    """Its run goes on elsewhere, or is home: what was lost here is not recovered any more."""
    record = missed_box(store, project, name)
    if record:
        store.update_box(project, name, int(record["generation"]), lost=LEFT)


def give_up(store: StateStore, project: str, name: str) -> None:
    """The box is wanted no more, so none of its machines counts as lost."""
    for generation in range(1, store.last_generation(project, name) + 1):
        record = store.read_box(project, name, generation)
        if record and record.get("lost"):
            store.update_box(project, name, generation, lost=None)


def _has_ended(store: StateStore, identity: BoxIdentity) -> bool:
    return accrual.intervals(_acts(store, identity), records.utc_now())[1] == accrual.ENDED


def _acts(store: StateStore, identity: BoxIdentity) -> Sequence[Mapping[str, Any]]:
    """What the journal says of this machine, as it is accounted for."""
    acts = accrual.acts_by_machine(Journal(store).lines())
    return acts.get((identity.project, identity.box, identity.provider_id), [])


def _note(store: StateStore, identity: BoxIdentity, **changes: Any) -> None:
    store.update_box(identity.project, identity.box, identity.generation, **changes)
