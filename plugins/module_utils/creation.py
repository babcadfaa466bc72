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
from .rental_account import RentalAccount
from .rental_waiters import DeadlinePassed, wait_until
from .rented_box import AnyBox
from .rest_client import RestError
from .stamp import ENVIRONMENT_NAME, Stamp

# A create whose answer was lost counts as not done when complete lists lack its stamp, the last of them this long
# after the request ended.
SETTLE_S = 15.0
LOOK_UP_WAIT_S = 180.0
# What a record of an earlier try of the generation may still say.
_UNKNOWN = (
    "machine_id", "price_per_hour", "created_at", "admitted_at", "admission", "rejected", "deploy_started_at",
    "destroyed_at", "lost", "prepaying", "prepaid_at",
    "tenant_roots",
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
        self.note(**{**dict.fromkeys(_UNKNOWN), **ours, **known})

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
        client, ended, readings = self._client, self._client.clock(), [0]

        def certain() -> str | None:
            ids = [box.provider_id for box in map(self._account.to_box, client.list_instances()) if self._is_it(box)]
            if ids:
                return min(ids, key=lambda one: (len(one), one))
            readings[0] += 1
            return "" if readings[0] >= 2 and client.clock() - ended >= SETTLE_S else None

        try:
            waits = client.back_off(0.5, 5.0)
            return wait_until(certain, ended + LOOK_UP_WAIT_S, waits, client.clock, client.sleep)
        except (RestError, DeadlinePassed) as error:
            raise TenantFailure(
                "provider",
                f"the create of {self.stamp} got no certain answer ({lost.what}) and the look-up failed too ({error})",
                box=self.stamp.box,
                safe="nothing more was rented; the box may exist, and is found by its stamp",
                fix="run again: it looks for the stamp before it rents",
            ) from None

    def confirmed(self, provider_id: str) -> AnyBox:
        """The new box as the provider shows it, in its record before the lock is let go."""
        client = self._client
        self.own(provider_id)
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
