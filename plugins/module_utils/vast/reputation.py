# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What our own rentals say of machines: which came up, which were outbid, over how many hours. Pure.

Read from the journal, which every process that rents, admits, starts or destroys writes. A stated default counts as
much as :data:`WEIGHT_BOOTS` boots or :data:`WEIGHT_HOURS` hours; our experience of other machines moves it, each
machine counting as one boot and a few hours at most, and a machine's own experience moves it further. Losing the
journal loses experience and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Iterable, Mapping

from ..box import records

# How much a default weighs against experience: after this many boots, or hours, both count alike (our choice).
WEIGHT_BOOTS = 4.0
WEIGHT_HOURS = 24.0
# What one machine tells about the others: a machine that failed nine times is one bad machine (our choice).
MOST_HOURS_OF_ONE = 4.0
# Hosts get mended and change hands: what is older says nothing (our choice).
REMEMBERED_DAYS = 30

_INTERRUPTIBLE = "interruptible"


@dataclass(frozen=True)
class Experience:
    """``hours`` are those for which interruptible boxes were rented, without the time that we had them stopped."""

    boots: float = 0
    failed_boots: float = 0
    hours: float = 0.0
    outbids: float = 0

    def plus(self, other: Experience) -> Experience:
        return Experience(
            self.boots + other.boots,
            self.failed_boots + other.failed_boots,
            self.hours + other.hours,
            self.outbids + other.outbids,
        )

    def as_one_machine(self) -> Experience:
        """The same shares, of one boot and :data:`MOST_HOURS_OF_ONE` hours at most."""
        boots, hours = min(self.boots, 1.0), min(self.hours, MOST_HOURS_OF_ONE)
        return Experience(
            boots,
            self.failed_boots * boots / self.boots if self.boots else 0.0,
            hours,
            self.outbids * hours / self.hours if self.hours else self.outbids,
        )

    def boot_failure(self, default: float) -> float:
        return (self.failed_boots + default * WEIGHT_BOOTS) / (self.boots + WEIGHT_BOOTS)

    def outbid_rate(self, default: float) -> float:
        return (self.outbids + default * WEIGHT_HOURS) / (self.hours + WEIGHT_HOURS)


@dataclass(frozen=True)
class Reputation:
    """By machine id; without any, every answer is the default."""

    machines: Mapping[int, Experience] = field(default_factory=dict)

    def boot_failure(self, machine_id: int | None, default: float) -> float:
        """Odds that a box rented on this machine never comes up."""
        own = self._own(machine_id)
        return own.boot_failure(self._others(machine_id).boot_failure(default))

    def outbid_rate(self, machine_id: int | None, default: float) -> float:
        """Outbids per hour."""
        own = self._own(machine_id)
        return own.outbid_rate(self._others(machine_id).outbid_rate(default))

    def words(self, machine_id: int | None) -> str:
        """What this machine did for us; empty when we never rented it."""
        own = self._own(machine_id)
        if not own.boots:
            return ""
        told = f"of {own.boots:g} boots here {own.failed_boots:g} boots failed"
        return told + (f" and {own.outbids:g} outbids in {own.hours:.1f} h" if own.hours else "")

    def _own(self, machine_id: int | None) -> Experience:
        return Experience() if machine_id is None else self.machines.get(machine_id, Experience())

    def _others(self, machine_id: int | None) -> Experience:
        whole = Experience()
        for machine, experience in self.machines.items():
            if machine != machine_id:
                whole = whole.plus(experience.as_one_machine())
        return whole


NO_EXPERIENCE = Reputation()


@dataclass(frozen=True)
class _Rental:
    """One box as the journal tells it; moments in seconds since the epoch.

    :param seen: the last line about it. A box that went without a line is not counted as running ever since.
    """

    machine_id: int
    market: str
    began: float
    seen: float
    halted: float | None = None
    halted_s: float = 0.0
    failed: bool = False
    outbids: int = 0

    def experience(self) -> Experience:
        halted_s = self.halted_s + (0.0 if self.halted is None else max(0.0, self.seen - self.halted))
        hours = max(0.0, self.seen - self.began - halted_s) / 3600.0
        counts = self.market == _INTERRUPTIBLE and not self.failed
        return Experience(1, int(self.failed), hours if counts else 0.0, self.outbids if counts else 0)


def from_journal(lines: Iterable[Mapping[str, Any]], now: str) -> Reputation:
    """The experience of the last :data:`REMEMBERED_DAYS` days; lines that make no sense are passed over.

    :param now: as :func:`records.utc_now` writes it.
    """
    moment = _moment(now) or 0.0
    rentals: dict[str, _Rental] = {}
    for line in lines:
        if line.get("kind") == "effect" and line.get("provider_id"):
            _take_up(rentals, str(line["provider_id"]), line)
    machines: dict[int, Experience] = {}
    for rental in rentals.values():
        if moment - rental.began <= REMEMBERED_DAYS * 86400:
            known = machines.get(rental.machine_id, Experience())
            machines[rental.machine_id] = known.plus(rental.experience())
    return Reputation(machines)


def _take_up(rentals: dict[str, _Rental], provider_id: str, line: Mapping[str, Any]) -> None:
    verb, at = line.get("verb"), _moment(line.get("at"))
    if at is None:
        return
    if verb == "rent" and records.is_count(line.get("machine_id")):
        rentals[provider_id] = _Rental(line["machine_id"], str(line.get("market")), at, at)
    known = rentals.get(provider_id)
    if known is None:
        return
    known = rentals[provider_id] = replace(known, seen=max(known.seen, at))
    if verb == "rejected":  # by its probe
        rentals[provider_id] = replace(known, failed=True)
    elif verb == "destroy":  # with a reason when it was given back because it stuck or came out dearer
        rentals[provider_id] = replace(known, failed=known.failed or bool(line.get("why")))
    elif verb == "stop" and known.halted is None:
        rentals[provider_id] = replace(known, halted=at)
    elif verb == "start":
        rentals[provider_id] = _started(known, at, line.get("bid") is not None)


def _started(known: _Rental, at: float, raised: bool) -> _Rental:
    """A start that had to raise the bid is one after an outbid, unless we had stopped the box ourselves."""
    if known.halted is not None:
        return replace(known, halted=None, halted_s=known.halted_s + max(0.0, at - known.halted))
    return replace(known, outbids=known.outbids + int(raised))


def _moment(at: Any) -> float | None:
    try:
        return records.parse_utc(str(at)).timestamp()
    except (ValueError, OverflowError):
        return None
