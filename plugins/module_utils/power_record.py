# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""When a box was told to rest and when it is known to have started: ``parked_at`` and ``started_at`` of its record.

A provider's row of a box at rest does not say when the box last ran, so these two times are all that the gate has. A
start is noted before it is sent: a crash in between costs a harvest, the other order could cost results.

A stop is noted twice. ``stopping`` is written before it is sent, ``parked_at`` once the provider has answered. Whoever
finds a box at rest with only the first takes it for stopped by that request, at the latest moment at which it can have
arrived. Whatever shows that the box was at work after the request was begun takes ``stopping`` away for good.
"""

from __future__ import annotations

import datetime
import math
from typing import Any, Mapping

from .box import records
from .journal import Journal
from .lease import CLOCK_TOLERANCE_S
from .rented_box import RESTING, WORKING
from .state_store import BoxIdentity, StateStore

SEEN_STARTED = "seen-started"
SEEN_STOPPED = "seen-stopped"


def read(store: StateStore, identity: BoxIdentity) -> dict[str, Any] | None:
    """The box record, if it is of this very machine: a duplicate of a generation has none of its own."""
    record = store.read_box(identity.project, identity.box, identity.generation)
    return record if record is not None and record.get("provider_id") == identity.provider_id else None


def note_start(store: StateStore, identity: BoxIdentity) -> None:
    _note(store, identity, parked_at=None, started_at=records.utc_now(), stopping=None)


def note_stopping(store: StateStore, identity: BoxIdentity, arrives_within_s: float) -> None:
    """A stop is about to be sent.

    :param arrives_within_s: after so many seconds its sender has given up.
    """
    since = records.utc_now()
    # Times are told in whole seconds.
    latest = records.parse_utc(since) + datetime.timedelta(seconds=math.ceil(arrives_within_s) + 1)
    _note(store, identity, stopping={"since": since, "until": records.utc_text(latest)})


def note_stop(store: StateStore, identity: BoxIdentity) -> None:
    _note(store, identity, parked_at=records.utc_now(), stopping=None)


def note_refused(store: StateStore, identity: BoxIdentity) -> None:
    """The provider did not take the stop: a rest that is seen later is not of our doing."""
    _note(store, identity, stopping=None)


def note_answered(store: StateStore, identity: BoxIdentity, at: str) -> None:
    """The box itself answered at this moment, so a stop that was begun before has not stopped it."""
    _forget_stop(store, identity, read(store, identity) or {}, at)


def note_seen(store: StateStore, identity: BoxIdentity, state: str, intended: str, observed_at: str) -> None:
    """Take a box that we parked and that the provider shows at work for started, by whomever; and one that rests, and
    whose stop we sent and did not live to note, for parked.

    :param observed_at: when the provider was asked, UTC text; a look from before the stop says nothing.
    """
    told_to_rest = intended == "stopped"
    if not (state in RESTING if told_to_rest else state in WORKING):
        return
    record = read(store, identity) or {}
    if told_to_rest:
        _take_for_parked(store, identity, record, observed_at)
        return
    _forget_stop(store, identity, record, observed_at)
    parked_at = record.get("parked_at")
    if isinstance(parked_at, str) and _is_later(observed_at, parked_at):
        Journal(store).append("effect", SEEN_STARTED, **identity.as_dict(), observed_at=observed_at)
        _note(store, identity, parked_at=None, started_at=observed_at)


def _take_for_parked(store: StateStore, identity: BoxIdentity, record: Mapping[str, Any], observed_at: str) -> None:
    stopping = _stopping(record)
    if stopping is None or record.get("parked_at") or observed_at < stopping["since"]:
        return
    parked_at = min(records.utc_now(), stopping["until"])
    Journal(store).append(
        "effect", SEEN_STOPPED, **identity.as_dict(), effective_at=parked_at, sent_at=stopping["since"]
    )
    _note(store, identity, parked_at=parked_at, stopping=None)


def _forget_stop(store: StateStore, identity: BoxIdentity, record: Mapping[str, Any], at_work_at: str) -> None:
    stopping = _stopping(record)
    if stopping is not None and (at_work_at == stopping["since"] or _is_later(at_work_at, stopping["since"])):
        _note(store, identity, stopping=None)


def _is_later(moment: str, noted: str) -> bool:
    """Whether a look came after what was noted. What was noted of a moment that is still to come, by a clock that was
    ahead, was before any look: else a start would go unseen until then, and an old seal would be believed."""
    latest = records.parse_utc(records.utc_now()) + datetime.timedelta(seconds=CLOCK_TOLERANCE_S)
    return moment > noted or noted > records.utc_text(latest)


def _stopping(record: Mapping[str, Any]) -> dict[str, str] | None:
    """``{since, until}`` of a stop of which nobody noted how it ended; None without one that can be read."""
    told = record.get("stopping")
    try:
        found = {name: str(told[name]) for name in ("since", "until")}  # type: ignore[index]  # what else it is, is caught
        return found if records.parse_utc(found["since"]) <= records.parse_utc(found["until"]) else None
    except (TypeError, KeyError, ValueError):
        return None


def _note(store: StateStore, identity: BoxIdentity, **changes: Any) -> None:
    if read(store, identity) is not None:
        store.update_box(identity.project, identity.box, identity.generation, **changes)
