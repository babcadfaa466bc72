# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Whether anything on a box can have worked since it was last seen: a seal holds only while nothing can. Pure."""

from __future__ import annotations

import datetime
from typing import Any, Mapping

from .box import records
from .evidence import Evidence
from .rented_box import RESTING

FRESH_SEAL_S = 300
CLOCK_SLACK_S = 60
# In these states nothing on the box can write, so a seal read earlier still holds.
STOPPED_STATES = (*RESTING, "exited")


def why_not_still(evidence: Evidence) -> str:
    """Why what was seen last may not be what is there now; empty when nothing can have changed it."""
    now, seen = records.parse_utc(evidence.now), moment(evidence.seen.get("read_at"))
    if seen is None:
        return "its seal reading has no readable time"
    age = (now - seen).total_seconds()
    if age < -CLOCK_SLACK_S:
        return f"its seal reading is {-age:.0f} s in the future, so a clock is wrong"
    state = evidence.provider.state
    if state in STOPPED_STATES:
        return why_restarted(evidence) or _why_not_parked(evidence, seen)
    if evidence.seen.get("at_rest"):
        return f"its seal was read from a copy that was made while it rested, and it is {state} now"
    if age > FRESH_SEAL_S:
        told = f"it is {state} and its seal was read {age:.0f} s ago (at most {FRESH_SEAL_S} s)"
        return f"{told}; where its copies take longer to read again, park it first"
    return _why_started_since(evidence, seen)


def why_restarted(evidence: Evidence) -> str:
    """Why the box may have been started after its seal was read, by what the provider and our record know of starts."""
    view = evidence.provider
    now, seen = records.parse_utc(evidence.now), moment(evidence.seen.get("read_at"))
    if seen is None:
        return "its seal reading has no readable time"
    since = _why_started_since(evidence, seen)
    if since:
        return since
    observed = moment(view.observed_at)
    if observed is None or abs((now - observed).total_seconds()) > FRESH_SEAL_S:
        return f"the provider's view of it is from {view.observed_at!r}, so look at the provider again"
    if view.started_at is None:
        return ""
    started = moment(view.started_at)
    if started is None:
        return f"the provider's start time of it cannot be read ({view.started_at!r})"
    # The provider's clock, moved onto ours by the age of its answer; staleness then counts against opening.
    return f"it was started at {view.started_at}, after its seal was read" if started + (now - observed) > seen else ""


def is_parked(evidence: Evidence) -> bool:
    """Whether we told the box to rest and know of no start since: else it may have come back by itself."""
    return moment(_own_record(evidence).get("parked_at")) is not None


def _own_record(evidence: Evidence) -> Mapping[str, Any]:
    """The box record if it is whole and of this very machine, else empty."""
    record = {} if evidence.box_record is None or evidence.box_problem else evidence.box_record
    ours = all(record.get(key) == value for key, value in evidence.identity.as_dict().items())
    return record if ours else {}


def _why_started_since(evidence: Evidence, seen: datetime.datetime) -> str:
    known = _own_record(evidence).get("started_at")
    if known is None:
        return ""
    started = moment(known)
    if started is None:
        return f"the start time in its record cannot be read ({known!r})"
    return f"it was started at {known}, after its seal was read" if seen <= started else ""


def _why_not_parked(evidence: Evidence, seen: datetime.datetime) -> str:
    """The provider's row of a resting box gives the time of its creation, so only our own stop dates its rest."""
    parked = moment(_own_record(evidence).get("parked_at"))
    if parked is None:
        return "it rests, but not because we stopped it, so it may have worked after its seal was read"
    late = (parked - seen).total_seconds()
    if late > FRESH_SEAL_S:
        return f"its seal was read {late:.0f} s before it was stopped (at most {FRESH_SEAL_S} s), so it may have worked"
    return ""


def moment(text: object) -> datetime.datetime | None:
    try:
        return records.parse_utc(text) if isinstance(text, str) else None
    except ValueError:
        return None
