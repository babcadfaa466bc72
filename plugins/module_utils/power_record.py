# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""When a box was told to rest and when it is known to have started: ``parked_at`` and ``started_at`` of its record.

A provider's row of a box at rest does not say when the box last ran, so these two times are all that the gate has. A
start is noted before it is sent: a crash in between costs a harvest, the other order could cost results.
"""

from __future__ import annotations

from typing import Any

from .box import records
from .journal import Journal
from .state_store import BoxIdentity, StateStore

SEEN_STARTED = "seen-started"
_RUNS = ("running", "loading", "scheduling")


def read(store: StateStore, identity: BoxIdentity) -> dict[str, Any] | None:
    """The box record, if it is of this very machine: a duplicate of a generation has none of its own."""
    record = store.read_box(identity.project, identity.box, identity.generation)
    return record if record is not None and record.get("provider_id") == identity.provider_id else None


def note_start(store: StateStore, identity: BoxIdentity) -> None:
    _note(store, identity, parked_at=None, started_at=records.utc_now())


def note_stop(store: StateStore, identity: BoxIdentity) -> None:
    _note(store, identity, parked_at=records.utc_now())


def note_seen(store: StateStore, identity: BoxIdentity, state: str, intended: str, observed_at: str) -> None:
    """Take a box that we parked and that the provider shows at work for started, by whomever.

    :param observed_at: when the provider was asked, UTC text; a look from before the stop says nothing.
    """
    if state not in _RUNS or intended == "stopped":
        return
    record = read(store, identity)
    parked_at = (record or {}).get("parked_at")
    if isinstance(parked_at, str) and observed_at > parked_at:
        Journal(store).append("effect", SEEN_STARTED, **identity.as_dict(), observed_at=observed_at)
        _note(store, identity, parked_at=None, started_at=observed_at)


def _note(store: StateStore, identity: BoxIdentity, **changes: Any) -> None:
    if read(store, identity) is not None:
        store.update_box(identity.project, identity.box, identity.generation, **changes)
