# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What bills beside machines until somebody deletes it: static addresses, snapshots, shared drives, own templates.

They are rows and a bill here; none of them holds a byte. The provider says that a deletion takes the snapshots of its
machine with it (DigitalOcean, "How to Deactivate a Machine"), and that a static address stays the team's.
"""

from __future__ import annotations

from dataclasses import replace

from ..books import Books
from ..state import MarketState
from ..volumes import Volume
from .orders import StoredOrder, missing
from .terms import MACHINE, STATIC_IP, STORED, number_of

ADDRESS, SNAPSHOT, DRIVE, TEMPLATE = "public-ip", "snapshot", "shared-drive", "custom-template"
_MONTH_H = 720.0
# What an address is taken from, which leads nowhere (RFC 5737): all boxes are on this machine.
_NET = "203.0.113"


class Beside:
    def __init__(self, books: Books) -> None:
        self._books = books

    def all(self, sort: str) -> list[Volume]:
        """Those of one sort, the oldest first."""
        with self._books.reading() as (state, _now):
            return [one for one in state.volumes.values() if one.live and one.sort == sort]

    def claim(self, region: str, owner: int = 0) -> Volume:
        """A static address, of a machine where one is named."""
        with self._books.changing() as (state, now):
            self._books.check_credit()
            number = state.take_id()
            name = f"{_NET}.{1 + number % 254}"
            return self._put(state, Volume(
                number, 0, 1.0, STATIC_IP * _MONTH_H, now, name=name, sort=ADDRESS, place=region, owner=owner
            ))  # fmt: skip

    def assign(self, stored: Volume, owner: int) -> Volume:
        with self._books.changing() as (state, _now):
            return self._put(state, replace(state.volumes[stored.id], owner=owner))

    def store(self, sort: str, order: StoredOrder) -> Volume:
        """MarketError (404) for a machine that there is none of."""
        with self._books.changing() as (state, now):
            self._books.check_credit()
            owner, region, size = 0, order.region, order.size_gb
            if order.machine:
                machine = state.instances.get(number_of(MACHINE, order.machine))
                if machine is None or not machine.live or machine.core is None:
                    raise missing("Machine not found")
                owner, region, size = machine.id, machine.core.region, float(machine.core.disk_gb)
            return self._put(state, Volume(
                state.take_id(), 0, size, STORED, now, name=order.name, sort=sort, place=region, owner=owner
            ))  # fmt: skip

    def delete(self, sort: str, number: int) -> Volume:
        """MarketError (404) for none of this sort."""
        with self._books.changing() as (state, now):
            found = state.volumes.get(number)
            if found is None or not found.live or found.sort != sort:
                raise missing(f"{sort} not found")
            return self._put(state, found.deleted(now))

    def machine_gone(self, number: int) -> None:
        """Its snapshots go with it; its static address stays, and bills."""
        for stored in self.all(SNAPSHOT):
            if stored.owner == number:
                self.delete(SNAPSHOT, stored.id)
        for stored in self.all(ADDRESS):
            if stored.owner == number:
                self.assign(stored, 0)

    @staticmethod
    def _put(state: MarketState, stored: Volume) -> Volume:
        state.volumes[stored.id] = stored
        return stored
