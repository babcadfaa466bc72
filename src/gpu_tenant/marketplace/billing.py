# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The bill, as a pure function of what was rented when.

Compute bills while a box runs, its disk bills from creation until destruction whatever the state. Bandwidth bills both
ways, by the gigabyte, in every state. The provider's copies are metered, what a rehearsal says, and where the market is
told to meter it what goes over a box's own ssh; a line without any of these is zero and says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

HOUR_S = 3600.0
MONTH_H = 720.0
BANDWIDTH = ("bwd", "bwu")
# The largest discount of a host for paying ahead: the default in the help of the provider's CLI.
MOST_DISCOUNT = 0.4


@dataclass(frozen=True)
class Segment:
    """One stretch of compute at one price.

    :param start: market seconds.
    :param end: market seconds, None while it goes on.
    :param rate: dollars per hour, less the discount.
    :param discount: the fraction by which that is less, for a deposit.
    """

    start: float
    end: float | None
    rate: float
    discount: float = 0.0

    def hours(self, until: float) -> float:
        """How much of it had passed at a market time."""
        return max(0.0, (until if self.end is None else min(self.end, until)) - self.start) / HOUR_S


@dataclass(frozen=True)
class Traffic:
    """Gigabytes that crossed the wire at one moment: ``kind`` is bwd or bwu, ``rate`` dollars a gigabyte."""

    at: float
    kind: str
    gigabytes: float
    rate: float


@dataclass(frozen=True)
class Account:
    """All that the bill of one instance depends on.

    :param running_disk_rate: dollars an hour for its disks while it computes; None where that is what they always cost.
    :param forfeited: dollars of a deposit that were kept when it was given back early.
    """

    instance_id: int
    label: str
    created_at: float
    destroyed_at: float | None
    disk_gb: float
    storage_cost: float
    compute: tuple[Segment, ...]
    traffic: tuple[Traffic, ...] = ()
    earlier_disk: tuple[Segment, ...] = ()
    running_disk_rate: float | None = None
    forfeited: float = 0.0

    @property
    def disk_since(self) -> float:
        """From when on the disk costs what it costs now."""
        return self.earlier_disk[-1].end or self.created_at if self.earlier_disk else self.created_at

    @property
    def disk_rate(self) -> float:
        """Dollars per hour for the disk."""
        return self.storage_cost * self.disk_gb / MONTH_H

    def disk_segments(self) -> list[Segment]:
        """The stretches in which its disks cost one price."""
        if self.running_disk_rate is None:
            return [*self.earlier_disk, Segment(self.disk_since, self.destroyed_at, self.disk_rate)]
        found: list[Segment] = []
        at: float | None = self.created_at
        for part in self.compute:
            resting = Segment(at or part.start, part.start, self.disk_rate)
            found += [resting, Segment(part.start, part.end, self.running_disk_rate)]
            at = part.end
        return found if at is None else [*found, Segment(at, self.destroyed_at, self.disk_rate)]


@dataclass(frozen=True)
class Item:
    """One line: ``kind`` is gpu, disk, bwd, bwu or deposit; ``quantity`` hours or gigabytes, ``rate`` dollars each."""

    kind: str
    quantity: float
    rate: float
    amount: float
    start: float
    end: float
    metered: bool = True


@dataclass(frozen=True)
class Charge:
    instance_id: int
    label: str
    start: float
    end: float
    items: tuple[Item, ...]

    @property
    def amount(self) -> float:
        return sum(item.amount for item in self.items)


def charge(account: Account, until: float, since: float = 0.0) -> Charge:
    """What one instance cost between two market times."""
    start = max(account.created_at, since)
    end = max(start, min(until, until if account.destroyed_at is None else account.destroyed_at))
    items = [_stretch("gpu", part.start, part.end, part.rate, since, until) for part in account.compute]
    items += [_stretch("disk", part.start, part.end, part.rate, since, until) for part in account.disk_segments()]
    items += [_moved(kind, account.traffic, start, end) for kind in BANDWIDTH]
    items += _kept(account, until, since)
    return Charge(account.instance_id, account.label, start, end, tuple(items))


def charges(accounts: Iterable[Account], until: float, since: float = 0.0) -> list[Charge]:
    """The charges of every instance that existed between two market times, oldest first."""
    existed = [
        account
        for account in accounts
        if account.created_at <= until and (account.destroyed_at is None or account.destroyed_at >= since)
    ]
    return sorted((charge(account, until, since) for account in existed), key=lambda line: line.instance_id)


def total(lines: Iterable[Charge]) -> float:
    return sum(line.amount for line in lines)


def bill_as_dict(lines: list[Charge], now: float) -> dict[str, Any]:
    """The bill as the control API shows it."""
    return {
        "now": now,
        "currency": "USD",
        "total": total(lines),
        "not_metered": [kind for kind in BANDWIDTH if not any(_is_metered(line, kind) for line in lines)],
        "instances": [
            {
                "id": line.instance_id,
                "label": line.label,
                "start": line.start,
                "end": line.end,
                "amount": line.amount,
                "items": [
                    {
                        "type": item.kind,
                        "quantity": item.quantity,
                        "rate": item.rate,
                        "amount": item.amount,
                        "metered": item.metered,
                    }
                    for item in line.items
                ],
            }
            for line in lines
        ],
    }


def _is_metered(line: Charge, kind: str) -> bool:
    return any(item.metered for item in line.items if item.kind == kind)


def _kept(account: Account, until: float, since: float) -> list[Item]:
    at = account.destroyed_at
    if not account.forfeited or at is None or not since <= at <= until:
        return []
    return [Item("deposit", 1.0, account.forfeited, account.forfeited, at, at)]


def _moved(kind: str, traffic: Iterable[Traffic], start: float, end: float) -> Item:
    """The traffic of one kind; the rate is a machine's, so all of it has the same."""
    moved = [one for one in traffic if one.kind == kind and start <= one.at <= end]
    gigabytes = sum(one.gigabytes for one in moved)
    amount = sum(one.gigabytes * one.rate for one in moved)
    return Item(kind, gigabytes, moved[0].rate if moved else 0.0, amount, start, end, bool(moved))


def _stretch(kind: str, start: float, end: float | None, rate: float, since: float, until: float) -> Item:
    first = max(start, since)
    last = max(first, until if end is None else min(end, until))
    hours = (last - first) / HOUR_S
    return Item(kind, hours, rate, hours * rate, first, last)
