# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the account's instances and volumes cost so far, and what credit is left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from . import billing, instances
from .books import Books

# What an account that never runs out shows before it spent anything.
SHOWN_CREDIT = 100.0


@dataclass(frozen=True)
class Deposit:
    """Dollars that were paid ahead for an instance, ``at`` a market time; ``number`` counts an account's deposits."""

    number: int
    at: float
    instance_id: int
    amount: float


class Money:
    def __init__(self, books: Books) -> None:
        self._books = books

    def charges(self, since: float = 0.0, until: float | None = None) -> list[billing.Charge]:
        with self._books.reading() as (state, now):
            accounts = [one.account() for one in state.instances.values()]
        return billing.charges(accounts, now if until is None else min(until, now), since)

    def volume_charges(self, since: float = 0.0, until: float | None = None) -> list[billing.Charge]:
        with self._books.reading() as (state, now):
            accounts = [one.account() for one in state.volumes.values()]
        return billing.charges(accounts, now if until is None else min(until, now), since)

    def bill(self) -> dict[str, Any]:
        now = self._books.clock.now()
        bill = billing.bill_as_dict(self.charges(until=now), now)
        lines = self.volume_charges(until=now)
        stored = [{"id": line.instance_id, "label": line.label, "amount": line.amount} for line in lines]
        speed = self._books.config.speed
        return {**bill, "total": bill["total"] + billing.total(lines), "volumes": stored, "speed": speed}

    def credit(self) -> float:
        """Dollars left; below zero what is owed."""
        given = self._books.config.credit
        start = (SHOWN_CREDIT if given is None else given) + self._books.state.paid_in
        return start - billing.total(self.charges()) - billing.total(self.volume_charges()) - self._deposited()

    def _deposited(self) -> float:
        """What lies in deposits of boxes that are there: it is paid, and not used yet."""
        with self._books.reading() as (state, now):
            return sum(instances.credit_balance(one, now) for one in state.instances.values() if one.live)

    def deposits(self, since: float = 0.0, until: float | None = None) -> list[Deposit]:
        """What was paid ahead for instances, oldest first."""
        with self._books.reading() as (state, now):
            paid = [(at, one.id, dollars) for one in state.instances.values() for at, dollars in one.deposits]
        last = now if until is None else until
        every = [Deposit(number, *one) for number, one in enumerate(sorted(paid), 1)]
        return [one for one in every if since <= one.at <= last]

    def meter(self, instance_id: int, kind: str, gigabytes: float) -> float:
        """Bill traffic to an instance, as its host would have counted it; the dollars. One that is gone pays too."""
        with self._books.changing() as (state, now):
            instance = state.instances[instance_id]
            machine = self._books.machine(instance.machine_id)
            rate = machine.down_cost if kind == "bwd" else machine.up_cost
            at = now if instance.destroyed_at is None else instance.destroyed_at
            moved = billing.Traffic(at, kind, gigabytes, rate)
            self._books.put(replace(instance, traffic=(*instance.traffic, moved)))
        return gigabytes * rate
