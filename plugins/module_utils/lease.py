# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What may become of the lease on a box. Pure: no clock, no disk; where it is kept is for ``leases`` to know.

A lease is held by a process and by those that it started and that joined it, for instance a runner and its playbook. It
ends when the last of them releases it, is seen to be dead, or lets its time run out; or when a person takes it away.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Mapping

from .box import records
from .failures import TenantFailure
from .holders import DEAD, Holder, holder_from

TERM_S = 300.0
# Clocks of controllers that share a state store may differ by this much. NTP keeps them within a second.
CLOCK_TOLERANCE_S = 30.0
# A provider's verb cannot be fenced, so that it must begin and end while the lease lasts.
VERB_MARGIN_S = 60.0
TAKE_OVER = "box_lease_from"
_MOST_DISPLACED = 20


@dataclass(frozen=True)
class Lease:
    """:param epoch: grows with every grant and never goes back; the box refuses a lower one.
    :param displaced: holders that may still live and were replaced: they must not act any more.
    """

    project: str
    box: str
    epoch: int
    nonce: str
    purpose: str
    granted_at: float
    until: float
    holders: tuple[Holder, ...]
    released_at: float | None = None
    displaced: tuple[Holder, ...] = field(default=())

    def is_open(self, now: float) -> bool:
        """Whether it still binds others, whose clock may be fast."""
        return self.released_at is None and now <= self.until + CLOCK_TOLERANCE_S

    def left_s(self, now: float) -> float:
        """For how long its holder may rely on it."""
        return 0.0 if self.released_at is not None else self.until - now


@dataclass(frozen=True)
class Ask:
    """Who wants a lease. ``over`` is the nonce of a lease that a person decided to take away."""

    project: str
    box: str
    purpose: str
    nonce: str
    holder: Holder
    term_s: float = TERM_S
    over: str = ""


@dataclass(frozen=True)
class Grant:
    """``how``: new, kept, joined; or why another's lease gave way: dead, expired, taken."""

    lease: Lease
    how: str
    replaced: Lease | None = None


class Held(Exception):
    """Somebody else has the lease."""

    def __init__(self, lease: Lease) -> None:
        super().__init__(lease.nonce)
        self.lease = lease


def take(before: Lease | None, ask: Ask, now: float, state_of: Callable[[Holder], str]) -> Grant:
    """Grant, or keep, the lease. :raises Held: another has it."""
    if before is None or before.released_at is not None:
        return Grant(_granted(before, ask, now, ()), "new")
    if ask.holder in before.holders or ask.nonce == before.nonce:
        return _kept(before, ask, now, state_of)
    why = _gives_way(before, ask, now, state_of)
    if not why:
        raise Held(before)
    living = tuple(holder for holder in (*before.displaced, *before.holders) if state_of(holder) != DEAD)
    return Grant(_granted(before, ask, now, living), why, before)


def _gives_way(before: Lease, ask: Ask, now: float, state_of: Callable[[Holder], str]) -> str:
    if all(state_of(holder) == DEAD for holder in before.holders):
        return "dead"
    if not before.is_open(now):
        return "expired"
    return "taken" if ask.over and ask.over == before.nonce else ""


def _kept(before: Lease, ask: Ask, now: float, state_of: Callable[[Holder], str]) -> Grant:
    others = tuple(one for one in before.holders if one != ask.holder and state_of(one) != DEAD)
    joined = ask.holder not in before.holders
    until = max(before.until, now + ask.term_s)
    return Grant(replace(before, holders=(*others, ask.holder), until=until), "joined" if joined else "kept")


def _granted(before: Lease | None, ask: Ask, now: float, displaced: tuple[Holder, ...]) -> Lease:
    # The clock as a floor: with the state store lost, the box's fence still knows the epochs of before.
    epoch = max(before.epoch + 1 if before else 1, int(now))
    displaced = tuple(holder for holder in displaced if holder != ask.holder)[-_MOST_DISPLACED:]
    return Lease(
        ask.project, ask.box, epoch, ask.nonce, ask.purpose, now, now + ask.term_s, (ask.holder,), None, displaced
    )


def renew(before: Lease | None, holder: Holder, now: float, term_s: float = TERM_S) -> Lease | None:
    """The lease with a later end; None when ``holder`` no longer has it."""
    if before is None or before.released_at is not None or holder not in before.holders:
        return None
    return replace(before, until=max(before.until, now + term_s))


def release(before: Lease | None, holder: Holder, now: float) -> Lease | None:
    """The lease without ``holder``, over when it was the last; None when that changes nothing."""
    if before is None or before.released_at is not None or holder not in before.holders:
        return None
    left = tuple(one for one in before.holders if one != holder)
    return replace(before, holders=left) if left else replace(before, holders=left, released_at=now)


def refusal(lease: Lease) -> TenantFailure:
    """Says who has the lease, for how long, and how to take it away."""
    who = " and ".join(holder.words() for holder in lease.holders) or "nobody who is known"
    return TenantFailure(
        "lease_held",
        f"'{lease.purpose}' is at work on it: {who} has the lease until {utc(lease.until)}",
        box=lease.box,
        safe="nothing was changed",
        fix=f"wait until it ends; or take the lease away from it: the same command with -e {TAKE_OVER}={lease.nonce}",
    )


def displaced(lease: Lease) -> TenantFailure:
    """Says to a process that went on after its lease was taken away that it may not."""
    return TenantFailure(
        "lease_held",
        f"the lease of this command was taken away, by '{lease.purpose}' at {utc(lease.granted_at)}",
        box=lease.box,
        safe="the step that was due is not done",
        fix="run the same command again once the other has ended",
    )


def utc(moment: float) -> str:
    return records.utc_text(datetime.datetime.fromtimestamp(moment, datetime.timezone.utc))


def as_record(lease: Lease) -> dict[str, Any]:
    """The lease as it is kept; moments as UTC text, the end rounded down."""
    return {
        "project": lease.project,
        "box": lease.box,
        "epoch": lease.epoch,
        "nonce": lease.nonce,
        "purpose": lease.purpose,
        "granted_at": utc(lease.granted_at),
        "until": utc(lease.until),
        "released_at": None if lease.released_at is None else utc(lease.released_at),
        "holders": [holder.as_dict() for holder in lease.holders],
        "displaced": [holder.as_dict() for holder in lease.displaced],
    }


def from_record(record: Mapping[str, Any]) -> Lease:
    """:raises RecordError: it holds no lease."""
    try:
        released = record["released_at"]
        return Lease(
            str(record["project"]),
            str(record["box"]),
            int(record["epoch"]),
            str(record["nonce"]),
            str(record["purpose"]),
            _moment(record["granted_at"]),
            _moment(record["until"]),
            _holders(record["holders"]),
            None if released is None else _moment(released),
            _holders(record["displaced"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise records.RecordError(f"the lease record of {record.get('box')} cannot be used: {error!r}") from error


def _moment(text: Any) -> float:
    return records.parse_utc(str(text)).timestamp()


def _holders(values: Any) -> tuple[Holder, ...]:
    found = tuple(map(holder_from, values))
    if None in found:
        raise ValueError("it names a holder that is none")
    return tuple(holder for holder in found if holder is not None)
