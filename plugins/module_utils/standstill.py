# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Whether anything on a box can have worked since it was last seen: a seal holds only while nothing can. Pure."""

from __future__ import annotations

import datetime

from .box import records
from .evidence import Evidence

FRESH_SEAL_S = 300
CLOCK_SLACK_S = 60
# In these states nothing on the box can write, so a seal read earlier still holds.
STOPPED_STATES = ("stopped", "outbid", "exited")


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
        return why_restarted(evidence)
    if evidence.seen.get("at_rest"):
        return f"its seal was read from a copy that was made while it rested, and it is {state} now"
    if age > FRESH_SEAL_S:
        return f"it is {state} and its seal was read {age:.0f} s ago (at most {FRESH_SEAL_S} s)"
    return ""


def why_restarted(evidence: Evidence) -> str:
    """Why the box may have been started after its seal was read, by the provider's word; empty when it was not."""
    view = evidence.provider
    now, seen = records.parse_utc(evidence.now), moment(evidence.seen.get("read_at"))
    if seen is None:
        return "its seal reading has no readable time"
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


def moment(text: object) -> datetime.datetime | None:
    try:
        return records.parse_utc(text) if isinstance(text, str) else None
    except ValueError:
        return None
