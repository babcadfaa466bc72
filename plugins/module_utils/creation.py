# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One create of one stamp, from before it is sent until its box is in its record: never twice, never lost.

A create is sent once. When its answer is lost, the account's list is searched for the stamp until the answer is
certain.
"""

from __future__ import annotations

import os
from typing import Any, Generic, Iterable, Mapping

from .box import records
from .failures import TenantFailure
from .lease import CLOCK_TOLERANCE_S
from .rental_account import RentalAccount
from .rental_waiters import DeadlinePassed, wait_until
from .rented_box import AnyBox
from .rest_client import AmbiguousAnswer, RestError
from .stamp import ENVIRONMENT_NAME, Stamp, parse_stamp

# A create whose answer was lost counts as not done when complete lists lack its stamp, the last of them this long
# after the request ended.
SETTLE_S = 15.0
LOOK_UP_WAIT_S = 180.0
# What a record of an earlier try of the generation may still say.
_UNKNOWN = (
    "machine_id", "price_per_hour", "created_at", "admitted_at", "admission", "rejected", "deploy_started_at",
    "destroyed_at", "lost", "prepaying", "prepaid_at",
    "tenant_roots", "settled_at",
)  # fmt: skip


class Creation(Generic[AnyBox]):
    """The caller holds the account's lock while it lasts, so that no two processes send a create for one name."""

    def __init__(self, account: RentalAccount[AnyBox], stamp: Stamp) -> None:
        self._account = account
        self._client = account.client
        self._store = account.store
        self.stamp = stamp

    def intend(self, **known: Any) -> None:
        """The record of the generation, before it can exist: a create whose answer is lost is known by it."""
        ours = {"provider_id": "", "platform": self._account.PLATFORM, "stamp": str(self.stamp)}
        self.note(**{**dict.fromkeys(_UNKNOWN), **ours, **known, "sent_at": records.utc_now()})

    def note_sending(self) -> None:
        """The create is about to be sent, later than it was meant to be: it may surface from now on, not from then."""
        self.note(sent_at=records.utc_now())

    def note(self, **changes: Any) -> None:
        self._store.update_box(self.stamp.project, self.stamp.box, self.stamp.generation, **changes)

    def own(self, provider_id: str) -> None:
        self.note(provider_id=provider_id, created_at=records.utc_now())

    def forget(self) -> None:
        """Take back the record of a generation that certainly was never rented."""
        place = (self.stamp.project, self.stamp.box, self.stamp.generation)
        record = self._store.read_box(*place)
        if record is not None and not record.get("provider_id"):
            os.unlink(self._store.box_record_path(*place))

    def look_up(self, lost: RestError) -> str:
        """The id of the box with this stamp; empty once lists lack it for as long as it takes to be certain."""
        box = self._looked_up(lost, SETTLE_S)
        return box.provider_id if box is not None else ""

    def settled(self, settle_s: float) -> AnyBox | None:
        """The box of a create whose process did not live to hear the answer, in its record; None where lists lack its
        stamp for ``settle_s`` from now on."""
        killed = AmbiguousAnswer("the process that sent it ended before its answer came", 0, "unanswered")
        box = self._looked_up(killed, settle_s)
        if box is not None:
            self._account.remember(box)
        return box

    def _looked_up(self, lost: RestError, settle_s: float) -> AnyBox | None:
        """What has the stamp; None, which the record then says, once it is certain that nothing has."""
        client, ended, readings = self._client, self._client.clock(), [0]

        def certain() -> tuple[AnyBox | None] | None:
            there = [box for box in map(self._account.to_box, client.list_instances()) if self._is_it(box)]
            if there:
                return (min(there, key=lambda box: (len(box.provider_id), box.provider_id)),)
            readings[0] += 1
            return (None,) if readings[0] >= 2 and client.clock() - ended >= settle_s else None

        try:
            deadline, waits = ended + max(LOOK_UP_WAIT_S, 2 * settle_s), client.back_off(0.5, 5.0)
            found = wait_until(certain, deadline, waits, client.clock, client.sleep)[0]
        except (RestError, DeadlinePassed) as error:
            raise TenantFailure(
                "provider",
                f"the create of {self.stamp} got no certain answer ({lost.what}) and the look-up failed too ({error})",
                box=self.stamp.box,
                safe="nothing more was rented; the box may exist, and is found by its stamp",
                fix="run again: it looks for the stamp before it rents",
            ) from None
        if found is None:
            self.note(settled_at=records.utc_now())
        return found

    def confirmed(self, provider_id: str) -> AnyBox:
        """The new box as the provider shows it, in its record before the lock is let go."""
        self.own(provider_id)
        return self.shown(provider_id)

    def shown(self, provider_id: str) -> AnyBox:
        """What was rented, once the provider shows it."""
        client = self._client
        try:
            deadline = client.clock() + LOOK_UP_WAIT_S
            row: Mapping[str, Any] = wait_until(
                lambda: client.get_instance(provider_id), deadline, client.back_off(), client.clock, client.sleep
            )
        except DeadlinePassed:
            raise TenantFailure(
                "provider",
                f"{self._account.THING} {provider_id} was rented as {self.stamp} but the provider does not show it",
                box=self.stamp.box,
                safe="it is recorded, and nothing more was rented",
                fix="run again in a minute: it is found by its stamp",
            ) from None
        return self._account.to_box(row)

    def _is_it(self, box: AnyBox) -> bool:
        return box.stamp == self.stamp


def settled_intent(account: RentalAccount[AnyBox], project: str, name: str) -> AnyBox | None:
    """The box of a create that a process sent which was killed before it knew the answer; None where there is none.

    For whoever is about to send another, holds the account's lock, and was told by lists and known ids that there is no
    box of the name: a request may arrive long after its sender is gone.
    """
    record = _newest_record(account, project, name)
    stamp = parse_stamp(record.get("stamp"))
    if stamp is None or record.get("provider_id") or record.get("settled_at"):
        return None
    left_s = _unsettled_s(record.get("sent_at"), account.client.timeout_s + SETTLE_S)
    return Creation(account, stamp).settled(left_s) if left_s > 0 else None


def _newest_record(account: RentalAccount[AnyBox], project: str, name: str) -> Mapping[str, Any]:
    generation = account.store.last_generation(project, name)
    return (account.store.read_box(project, name, generation) if generation else None) or {}


def _unsettled_s(sent_at: Any, settle_s: float) -> float:
    """Seconds for which a create sent then may still surface. A moment that nobody knows, or that is yet to come
    because the clock was set back, leaves all of them: neither none, nor more. Who sent it may have been another
    controller, whose clock is as far off ours as leases allow."""
    try:
        sent = records.parse_utc(str(sent_at))
    except ValueError:
        return settle_s
    ago = (records.parse_utc(records.utc_now()) - sent).total_seconds()
    return min(settle_s, settle_s + CLOCK_TOLERANCE_S - ago)


def check_order(name: str, problem: str) -> None:
    """TenantFailure for an order of the box ``name`` that has a problem."""
    if problem:
        raise TenantFailure("config", problem, box=name, safe="nothing was rented", fix="correct it and run again")


def carried_problem(key: str, env: Mapping[str, str], texts: Iterable[str], where: str) -> str:
    """Why what a box is rented with may not be sent; empty where it may.

    :param key: the account's, which must not reach a stranger's machine.
    :param texts: what is sent beside ``env``; ``where`` names them.
    """
    if ENVIRONMENT_NAME in env:
        return f"{ENVIRONMENT_NAME} in env is ours"
    if any(key in text for text in (*texts, *env.values())):
        return f"the account's API key is in {where} or env, and would reach a stranger's machine"
    return ""
