# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Danger clocks: what a platform does by itself, and how long until it does."""

from __future__ import annotations

import datetime
import math
import re
from typing import Any, Mapping

from .box import records

# A clock with less than this left is an alarm, unless it says otherwise.
ALARM_S = 24 * 3600

_SPAN = re.compile(r"([0-9]+)(s|m|h|d)\Z")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def span_s(text: Any) -> int | None:
    """Seconds of ``15d``, ``12h``, ``30m``, ``0s``; None for an empty text: nobody says. ValueError otherwise."""
    if text in ("", None):
        return None
    match = _SPAN.match(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is not a span of time: write a number and s, m, h or d, for example '15d'")
    return int(match.group(1)) * _UNIT_S[match.group(2)]


def countdown(
    clocks: Any, state: str = "", since: Any = None, now: Any = None, deadlines: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The clocks that concern a box in ``state``, the most urgent first.

    :param clocks: ``platform_clocks``: a list of ``{after, effect, starts_at}``, and perhaps ``alarm``.
    :param state: what the box is now (``stopped``, ``running`` means ``started``, …); empty lists every clock.
    :param since: when that began: UTC text, epoch seconds, or a mapping from ``starts_at`` to either.
    :param now: replaced in tests; by default the present.
    :param deadlines: when the clocks of a ``starts_at`` are over, as somebody tells, whatever ``after`` says; None
        where such a clock may run and nobody tells: then it counts from ``since``. Without an entry it does not run.
    :returns: the clock with ``text`` (effect and span in words), ``running`` (bool), ``at`` (UTC text, or empty when
        unknown), ``left_s`` (seconds or None), ``left`` in words, ``is_now`` (it is so already) and
        ``is_alarm``.
    :raises ValueError: for clocks or times that are not what they should be.
    """
    if not isinstance(clocks, (list, tuple)):
        raise ValueError(f"a list of clocks is wanted, found {type(clocks).__name__}")
    moment = _moment("now", now) if now is not None else datetime.datetime.now(datetime.timezone.utc)
    current = "started" if state == "running" else state
    rows = [_reading(clock, current, since, moment, deadlines or {}) for clock in clocks]
    concerned = [row for row in rows if row["running"] or not current]
    return sorted(concerned, key=lambda row: (not row["running"], math.inf if row["left_s"] is None else row["left_s"]))


def _reading(
    clock: Any, state: str, since: Any, now: datetime.datetime, deadlines: Mapping[str, Any]
) -> dict[str, Any]:
    if not isinstance(clock, dict) or not {"after", "effect", "starts_at"} <= set(clock):
        raise ValueError(f"{clock!r} is not a clock: it needs after, effect and starts_at")
    after, starts_at = span_s(clock["after"]), clock["starts_at"]
    running = starts_at in ("always", state) or starts_at in deadlines or (starts_at == "created" and bool(state))
    at = None
    if deadlines.get(starts_at) is not None:
        at = _moment("deadline", deadlines[starts_at])
    elif running and after:
        begun = _begun(since, starts_at, state)
        # What was written down by a clock that was ahead began now at the latest: there is never more time than that.
        at = None if begun is None else min(begun, now) + datetime.timedelta(seconds=after)
    is_now = running and after == 0 and starts_at not in deadlines
    left = 0 if is_now else None if at is None else round((at - now).total_seconds())
    threshold = span_s(clock.get("alarm"))
    return {
        "after": clock["after"],
        "effect": clock["effect"],
        "text": str(clock["effect"]) + (f" (after {clock['after']})" if after else ""),
        "starts_at": starts_at,
        "running": running,
        "at": records.utc_text(at) if at is not None else "",
        "left_s": left,
        "is_now": is_now,
        "left": time_left(left) if running else "not running",
        "is_alarm": left is not None and not is_now and left < (ALARM_S if threshold is None else threshold),
    }


def _begun(since: Any, starts_at: str, state: str) -> datetime.datetime | None:
    """When this clock began to run, if it is known."""
    if isinstance(since, dict):
        since = since.get(starts_at)
    elif starts_at != state:
        return None
    return None if since in (None, "") else _moment("since", since)


def _moment(name: str, value: Any) -> datetime.datetime:
    if isinstance(value, datetime.datetime):
        return value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return datetime.datetime.fromtimestamp(value, datetime.timezone.utc)
        return records.parse_utc(value)
    except (TypeError, ValueError, OverflowError, OSError):
        raise ValueError(f"{name} is {value!r}: UTC such as 2026-11-21T03:38:06Z or epoch seconds is wanted") from None


def time_left(left: int | None) -> str:
    """Seconds in words; "now" for none, "overdue" for less, "unknown" for None."""
    if left is None:
        return "unknown"
    if left == 0:
        return "now"
    if left < 0:
        return "overdue"
    days, rest = divmod(left, 86400)
    hours, rest = divmod(rest, 3600)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {rest // 60} min"
    return f"{rest // 60} min" if rest >= 60 else f"{rest} s"
