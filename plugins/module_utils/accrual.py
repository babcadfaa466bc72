# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a rented machine costs by the journal: the one rule of the report, of the status and of every decision. Pure.

Each interval between two of our own acts costs the rate that held then: compute and disk while it runs, the disk while
it rests, nothing once it is gone. What else happened without us in between (outbid, a host that was down) is not in it,
so it is rather too much, and bandwidth is not in it either. Unknown is None, never 0.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from typing import Any, Iterable, Mapping, Sequence

from .box import records

RUNNING, STOPPED, ENDED = "running", "stopped", "ended"
# What a new box costs, where its market tells it only once the box runs.
PRICED = "priced"
# What it costs from then on, because its host asked for more and was answered.
ACCEPT_PRICE_RISE = "accept_price_rise"
# Its provider said twice that it has it no more, and no destroy of ours was answered.
SEEN_GONE = "seen-gone"
_LEADS_TO = {
    **dict.fromkeys(("rent", "start", "seen-started", PRICED), RUNNING),
    **dict.fromkeys(("stop", "seen-stopped"), STOPPED),
    **dict.fromkeys(("destroy", SEEN_GONE), ENDED),
}
# These change a rate, and nothing else.
_REPRICES = (ACCEPT_PRICE_RISE,)
_RATE_OF = {RUNNING: "price_per_hour", STOPPED: "stopped_per_hour"}
_HOUR_S = 3600.0


@dataclass(frozen=True)
class Interval:
    """A time in one state. ``per_hour`` and ``dollars`` are None while the rate is unknown.

    :param is_repriced: it goes on from the one before, at another price.
    """

    state: str
    since: str
    until: str
    hours: float
    per_hour: float | None
    is_repriced: bool = False

    @property
    def dollars(self) -> float | None:
        return None if self.per_hour is None else self.per_hour * self.hours

    def after(self, moment: str) -> Interval | None:
        """What of it is later than a moment (UTC text); None when nothing is."""
        if hours_between(moment, self.until) <= 0.0:
            return None
        hours = min(self.hours, hours_between(moment, self.until))
        return replace(self, since=self.since if hours == self.hours else moment, hours=hours)

    def before(self, moment: str) -> Interval | None:
        """What of it is earlier than a moment (UTC text); None when nothing is."""
        if hours_between(self.since, moment) <= 0.0:
            return None
        hours = min(self.hours, hours_between(self.since, moment))
        return replace(self, until=self.until if hours == self.hours else moment, hours=hours)


def total(held: Iterable[Interval], unknown_per_hour: float | None = None) -> float | None:
    """Dollars; None as soon as one rate is not known.

    :param unknown_per_hour: what an hour of an unknown rate is taken for, by who would rather say too much.
    """
    amounts = [
        interval.dollars
        if interval.per_hour is not None or unknown_per_hour is None
        else unknown_per_hour * interval.hours
        for interval in held
    ]
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(amounts) else None


def intervals(acts: Sequence[Mapping[str, Any]], now: str) -> tuple[list[Interval], str]:
    """What was in force between the acts on one machine, oldest first, and its state after the last."""
    found: list[Interval] = []
    rates: dict[str, float] = _told_later(acts)
    state, since, is_repriced = "", "", False
    for act in acts:
        if state in _RATE_OF:
            found.append(_interval(state, since, str(act["at"]), rates, is_repriced))
        rates.update(_rates_after(act, rates))
        is_repriced = act["verb"] in _REPRICES or (act["verb"] == PRICED and state == RUNNING)
        state, since = _LEADS_TO.get(str(act["verb"]), state), str(act["at"])
        if act["verb"] == "destroy":
            break
    if state in _RATE_OF:
        found.append(_interval(state, since, now, rates, is_repriced))
    return found, state


def _told_later(acts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The price of a box whose market tells it only once the box runs: it held from the rental on."""
    first = next((act for act in acts if act.get("verb") == PRICED), {})
    return _rates_after(first, {}) if first else {}


def _interval(state: str, since: str, until: str, rates: Mapping[str, float], is_repriced: bool) -> Interval:
    return Interval(state, since, until, hours_between(since, until), rates.get(_RATE_OF[state]), is_repriced)


def hours_between(since: str, until: str) -> float:
    span: datetime.timedelta = records.parse_utc(until) - records.parse_utc(since)
    return max(span.total_seconds(), 0.0) / _HOUR_S


def _rates_after(act: Mapping[str, Any], known: Mapping[str, float]) -> dict[str, float]:
    """What the act says of the rates from then on."""
    if act.get("verb") in _REPRICES:
        # Its line has the rates of the moment before, too; who asks no more has changed none.
        asked = [name for name in _RATE_OF.values() if act.get("taken") is True and _is_rate(act.get(f"new_{name}"))]
        return {name: float(act[f"new_{name}"]) for name in asked}
    told = {name: float(act[name]) for name in _RATE_OF.values() if _is_rate(act.get(name))}
    disk = told.get("stopped_per_hour", known.get("stopped_per_hour"))
    price = told.get("price_per_hour")
    verb = act.get("verb")
    if verb == "start" or (verb not in ("rent", PRICED) and price is not None and disk is not None and price <= disk):
        # It was seen at rest, where the price may be the disk's alone.
        told.pop("price_per_hour", None)
    if verb == "start" and _is_rate(act.get("bid")) and disk is not None:
        # A raised bid is what compute costs from now on.
        told["price_per_hour"] = float(act["bid"]) + disk
    return told


def _is_rate(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")


def acts_by_machine(lines: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str, str], list[Mapping[str, Any]]]:
    """The effects that change what a machine costs, by project, box and the provider's id, oldest first.

    Written one after the other they happened in this order, whatever the clocks of their writers said: a stop that a
    clock which was set back puts before its rental would let the machine cost for ever.
    """
    found: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    written: dict[tuple[str, str, str], str] = {}
    for line in lines:
        if (
            line.get("kind") != "effect"
            or line.get("verb") not in (*_LEADS_TO, *_REPRICES)
            or not line.get("provider_id")
        ):
            continue
        # What was found out later was so before its line was written.
        at = str(line.get("effective_at") or line.get("at"))
        if is_moment(at):
            key = (str(line.get("project")), str(line.get("box")), str(line["provider_id"]))
            if not line.get("effective_at"):
                at = written[key] = max(at, written.get(key, ""))
            found.setdefault(key, []).append({**line, "at": at})
    for acts in found.values():
        acts.sort(key=lambda act: str(act["at"]))
    return found


def is_moment(text: str) -> bool:
    """Whether a line's moment can be read: one that cannot says nothing."""
    try:
        records.parse_utc(text)
    except ValueError:
        return False
    return True
