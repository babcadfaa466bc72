# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a rented machine has cost, from the journal's rates and from the provider's bill. Pure; unknown stays unknown.

Accrued is what the journal accounts for: each interval between two of our own acts, at the rate that held then. What
happened without us in between (outbid, a host that was down) is not in it, so it is rather too much, and bandwidth is
not in it either. Billed is the provider's word, and comes later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import records

RUNNING, STOPPED, ENDED = "running", "stopped", "ended"
_LEADS_TO = {
    **dict.fromkeys(("rent", "start", "seen-started"), RUNNING),
    **dict.fromkeys(("stop", "seen-stopped"), STOPPED),
    "destroy": ENDED,
}
_RATE_OF = {RUNNING: "price_per_hour", STOPPED: "stopped_per_hour"}
_HOUR_S = 3600.0


@dataclass(frozen=True)
class Interval:
    """A time in one state. ``per_hour`` and ``dollars`` are None while the rate is unknown."""

    state: str
    since: str
    until: str
    hours: float
    per_hour: float | None

    @property
    def dollars(self) -> float | None:
        return None if self.per_hour is None else self.per_hour * self.hours


@dataclass
class Machine:
    """One rented machine. ``accrued`` and ``billed`` are None while unknown; ``why_unknown`` says why."""

    project: str
    box: str
    generation: int
    provider_id: str
    platform: str
    runs: list[str] = field(default_factory=list)
    intervals: list[Interval] = field(default_factory=list)
    state: str = ""
    billed: float | None = None
    why_unknown: str = ""

    @property
    def accrued(self) -> float | None:
        amounts = [interval.dollars for interval in self.intervals]
        known = [amount for amount in amounts if amount is not None]
        return sum(known) if amounts and len(known) == len(amounts) else None

    @property
    def cost(self) -> float | None:
        """The provider's bill where there is one, else what accrued."""
        return self.billed if self.billed is not None else self.accrued

    def as_dict(self) -> dict[str, Any]:
        difference = None if self.billed is None or self.accrued is None else self.billed - self.accrued
        return {
            **asdict(self),
            "intervals": [{**asdict(interval), "dollars": interval.dollars} for interval in self.intervals],
            "accrued": self.accrued,
            "cost": self.cost,
            "billed_minus_accrued": difference,
        }


def machines(
    boxes: Iterable[Mapping[str, Any]],
    lines: Iterable[Mapping[str, Any]],
    receipts: Iterable[Mapping[str, Any]],
    contacts: Iterable[Mapping[str, Any]],
    billed: Mapping[str, float],
    now: str,
) -> list[Machine]:
    """Every machine that was ever rented, from the records of the state store.

    :param billed: dollars by the provider's id, as far as the provider has told.
    :param now: UTC text; until then what is not ended has accrued.
    """
    acts = _acts(lines)
    runs = _runs(receipts, contacts)
    found = []
    for record in boxes:
        key = (str(record.get("project")), str(record.get("box")), str(record.get("provider_id") or ""))
        if not key[2]:
            continue
        machine = Machine(
            key[0],
            key[1],
            int(record.get("generation") or 0),
            key[2],
            str(record.get("platform") or "unknown"),
            runs=sorted(runs.get(key, ())),
            billed=billed.get(key[2]),
        )
        machine.intervals, machine.state = intervals(acts.get(key, []), now)
        machine.why_unknown = _why_unknown(machine)
        found.append(machine)
    return found


def intervals(acts: Sequence[Mapping[str, Any]], now: str) -> tuple[list[Interval], str]:
    """What was in force between the acts on one machine, oldest first, and its state after the last."""
    found: list[Interval] = []
    rates: dict[str, float] = {}
    state, since = "", ""
    for act in acts:
        if state in _RATE_OF:
            found.append(_interval(state, since, str(act["at"]), rates))
        rates.update(_rates_after(act, rates))
        state, since = _LEADS_TO[str(act["verb"])], str(act["at"])
        if state == ENDED:
            break
    if state in _RATE_OF:
        found.append(_interval(state, since, now, rates))
    return found, state


def _interval(state: str, since: str, until: str, rates: Mapping[str, float]) -> Interval:
    seconds = (records.parse_utc(until) - records.parse_utc(since)).total_seconds()
    return Interval(state, since, until, max(seconds, 0.0) / _HOUR_S, rates.get(_RATE_OF[state]))


def _rates_after(act: Mapping[str, Any], known: Mapping[str, float]) -> dict[str, float]:
    """What the act says of the rates from then on."""
    told = {name: float(act[name]) for name in _RATE_OF.values() if _is_rate(act.get(name))}
    if act.get("verb") == "start":
        # It was seen at rest, where the price may be the disk's alone; a raised bid is what compute costs from now on.
        told.pop("price_per_hour", None)
        disk = told.get("stopped_per_hour", known.get("stopped_per_hour"))
        if _is_rate(act.get("bid")) and disk is not None:
            told["price_per_hour"] = float(act["bid"]) + disk
    return told


def _is_rate(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")


def _acts(lines: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str, str], list[Mapping[str, Any]]]:
    """The effects that change what a machine costs, by project, box and the provider's id, oldest first."""
    found: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for line in lines:
        if line.get("kind") != "effect" or line.get("verb") not in _LEADS_TO or not line.get("provider_id"):
            continue
        # What was found out later was so before its line was written.
        at = str(line.get("effective_at") or line.get("at"))
        try:
            records.parse_utc(at)
        except ValueError:
            continue
        key = (str(line.get("project")), str(line.get("box")), str(line["provider_id"]))
        found.setdefault(key, []).append({**line, "at": at})
    for acts in found.values():
        acts.sort(key=lambda act: str(act["at"]))
    return found


def _runs(
    receipts: Iterable[Mapping[str, Any]], contacts: Iterable[Mapping[str, Any]]
) -> dict[tuple[str, str, str], set[str]]:
    """The runs that are known to have been on each machine."""
    found: dict[tuple[str, str, str], set[str]] = {}
    for record in [*receipts, *contacts]:
        key = (str(record.get("project")), str(record.get("box")), str(record.get("provider_id")))
        named = record.get("runs")
        names = [str(record["run_id"])] if record.get("run_id") else list(named) if isinstance(named, Mapping) else []
        found.setdefault(key, set()).update(map(str, names))
    return found


def _why_unknown(machine: Machine) -> str:
    if machine.cost is not None:
        return ""
    if not machine.intervals:
        return "the journal does not say when it was rented, and the provider has not billed it"
    states = sorted({interval.state for interval in machine.intervals if interval.per_hour is None})
    return f"its rate while {' and '.join(states)} is not recorded, and the provider has not billed it"


@dataclass
class Sum:
    """``total`` is None as soon as one machine's cost is unknown; ``known`` is the sum of the others."""

    machines: int = 0
    known: float = 0.0
    unknown: int = 0

    def add(self, cost: float | None) -> None:
        self.machines += 1
        if cost is None:
            self.unknown += 1
        else:
            self.known += cost

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "total": None if self.unknown else self.known}


NO_RUN = "(no run known)"


def run_of(machine: Machine) -> str:
    """The key that a machine's cost is summed under; one that served several runs counts for them together."""
    return " + ".join(machine.runs) or NO_RUN


def sums(found: Iterable[Machine]) -> dict[str, dict[str, Sum]]:
    """By run, by project and by platform."""
    result: dict[str, dict[str, Sum]] = {"run": {}, "project": {}, "platform": {}}
    for machine in found:
        keys = {"run": run_of(machine), "project": machine.project, "platform": machine.platform}
        for kind, key in keys.items():
            result[kind].setdefault(key, Sum()).add(machine.cost)
    return result
