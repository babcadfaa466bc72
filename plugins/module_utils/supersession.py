# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A superseded box: a later generation took its place, it was outbid or stopped, and it still bills.

It may go without a seal and without an approval when a verified copy of every cell, from whichever box, is at least as
far as the cell was last known to be. Else it is harvested while it is stopped; else it is a loss. Pure.
"""

from __future__ import annotations

import datetime
from typing import Any, Mapping

from . import last_contact, losses, standstill
from .box import records
from .evidence import Evidence, runs_of, successor
from .state_store import BoxIdentity, StateStore

# A superseded box is dealt with in this time after its successor was admitted; later it is said to be overdue.
HANDLE_WITHIN_S = 24 * 3600


def gaps(evidence: Evidence) -> list[str]:
    """Why the exception does not hold; empty when the box may go."""
    if superseded_at(evidence) is None:
        return ["no later generation took its place"]
    if evidence.provider.state not in standstill.STOPPED_STATES:
        return [f"it is {evidence.provider.state}: stop it first, so that it cannot get any further"]
    if not standstill.is_parked(evidence):
        return ["it was not told to stop, so it comes back by itself: stop it (vast_instance with state: stopped)"]
    reading = evidence.reading
    if reading is None or not _is_of_this_box(evidence, reading):
        return ["how far it got is not known: no look at it can be trusted"]
    listed = runs_of(reading.get("index"))
    if listed is None:
        return ["which runs it holds is not known: its index was not read"]
    loss = losses.of(evidence)
    found = [f"unknown: {what}" for what in loss.unknown if not what.startswith("the live cell ")]
    seen = last_contact.parse(reading.get("checkpoints")) or {}
    found += [f"run {run['run_id']}: how far it got was not seen" for run in listed if run["run_id"] not in seen]
    strays = {cell.partition("/")[0] for cell in loss.known} - {run["run_id"] for run in listed}
    found += [f"run {run_id}: it is not in the index, so its spec is not known" for run_id in sorted(strays)]
    return found + [loss.reach_of(cell) for cell in loss.cells]


def superseded_at(evidence: Evidence) -> datetime.datetime | None:
    """When a later generation took its place; None while none did."""
    return _replaced_at(evidence.identity, evidence.newer)


def replaced_at(store: StateStore, identity: BoxIdentity) -> datetime.datetime | None:
    """The same of a box by its records alone."""
    return _replaced_at(identity, successor(store, identity))


def _replaced_at(identity: BoxIdentity, newer: Mapping[str, Any] | None) -> datetime.datetime | None:
    """When ``newer``, a box record, took the place of this box; None where it did not."""
    if newer is None or (newer.get("project"), newer.get("box")) != (identity.project, identity.box):
        return None
    generation = newer.get("generation")
    if not records.is_count(generation) or generation <= identity.generation or not newer.get("provider_id"):
        return None
    return standstill.moment(newer.get("admitted_at"))


def _is_of_this_box(evidence: Evidence, reading: Mapping[str, Any]) -> bool:
    index = reading.get("index")
    if not isinstance(index, Mapping) or reading.get("reachable") is not True:
        return False
    schemas = (reading.get("schema"), index.get("schema")) == (records.schema("seal-reading"), records.schema("index"))
    wanted = evidence.identity.as_dict().items()
    return schemas and all(reading.get(key) == value and index.get(key) == value for key, value in wanted)


def due_at(since: datetime.datetime) -> str:
    """By when a box that was replaced then is to be dealt with, UTC text."""
    return records.utc_text(since + datetime.timedelta(seconds=HANDLE_WITHIN_S))


def is_overdue(since: datetime.datetime, now: str) -> bool:
    return now > due_at(since)


def policy(evidence: Evidence) -> str:
    """What is to become of a superseded box and by when, in words; empty for any other."""
    since = superseded_at(evidence)
    if since is None:
        return ""
    due = due_at(since)
    when = f"this was due by {due}" if is_overdue(since, evidence.now) else f"do this by {due}"
    return (
        f"{evidence.subject} is superseded and bills; {when}: harvest it while it is stopped (the provider copies a "
        "stopped disk), or consent to its loss"
    )
