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
from .holders import ALIVE, DEAD, Holder, holder_from

TERM_S = 300.0
# Clocks that leases are kept by may differ by this much: where a shared disk has no clock of its own, those of the
# controllers. NTP keeps them within a second.
CLOCK_TOLERANCE_S = 30.0
# A provider's verb cannot be fenced, so that it must begin and end while the lease lasts.
VERB_MARGIN_S = 60.0
TAKE_OVER = "box_lease_from"
_MOST_DISPLACED = 20


@dataclass(frozen=True)
class Lease:
    """:param epoch: grows with every grant and never goes back; the box refuses a lower one.
    :param displaced: holders that may still live and were replaced, under this lease or one before: they must not act
        any more.
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
    """Somebody else has the lease.

    :param was_ours: it was taken away from who asks, who must not begin anew: whoever took it decided otherwise.
    """

    def __init__(self, lease: Lease, was_ours: bool = False) -> None:
        super().__init__(lease.nonce)
        self.lease, self.was_ours = lease, was_ours


def take(before: Lease | None, ask: Ask, now: float, state_of: Callable[[Holder], str]) -> Grant:
    """Grant, or keep, the lease. :raises Held: another has it, or took it away from this very holder."""
    if before is None:
        return Grant(_granted(before, ask, now, ()), "new")
    if ask.holder in before.displaced and ask.holder not in before.holders:
        raise Held(before, was_ours=True)
    if before.released_at is not None:
        return Grant(_granted(before, ask, now, _living(before.displaced, state_of)), "new")
    if ask.holder in before.holders or ask.nonce == before.nonce:
        return _kept(before, ask, now, state_of)
    why = _gives_way(before, ask, now, state_of)
    if not why:
        raise Held(before)
    return Grant(_granted(before, ask, now, _living((*before.displaced, *before.holders), state_of)), why, before)


def _living(known: tuple[Holder, ...], state_of: Callable[[Holder], str]) -> tuple[Holder, ...]:
    """Those that may still act."""
    return tuple(holder for holder in known if state_of(holder) != DEAD)


def _gives_way(before: Lease, ask: Ask, now: float, state_of: Callable[[Holder], str]) -> str:
    states = [state_of(holder) for holder in before.holders]
    if all(state == DEAD for state in states):
        return "dead"
    # One that is seen to live has not run out of time, whatever a clock says that was set, or a machine that slept.
    if ALIVE not in states and not before.is_open(now):
        return "expired"
    return "taken" if ask.over and ask.over == before.nonce else ""


def _kept(before: Lease, ask: Ask, now: float, state_of: Callable[[Holder], str]) -> Grant:
    others = tuple(one for one in before.holders if one != ask.holder and state_of(one) != DEAD)
    joined = ask.holder not in before.holders
    until = _extended(before, now, ask.term_s)
    return Grant(replace(before, holders=(*others, ask.holder), until=until), "joined" if joined else "kept")


def _extended(before: Lease, now: float, term_s: float) -> float:
    """A later end. One that only a wrong clock can have named is not kept: it would outlive its holder by as much."""
    return max(min(before.until, now + TERM_S), now + term_s)


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
    return replace(before, until=_extended(before, now, term_s))


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
    """Says to a process that went on after its lease was taken away that it may not.

    :param lease: the present one; who has it need not be who took it away.
    """
    who = " and ".join(holder.words() for holder in lease.holders)
    since = f"'{lease.purpose}'{f' ({who})' if who else ''} has had it since {utc(lease.granted_at)}"
    return TenantFailure(
        "lease_held",
        f"the lease of this command was taken away: {since}",
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
