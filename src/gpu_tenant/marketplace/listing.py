# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a search and a list of instances show."""

from __future__ import annotations

from typing import Any

from . import instances, offers
from .books import Books
from .holds import Held
from .instances import Instance, Phase
from .offer_table import OfferTable
from .rows import instance_row, stored_row


class Listing:
    def __init__(self, books: Books) -> None:
        self._books = books
        self._offers = OfferTable(books.machines)
        self._stored: dict[int, tuple[Instance, dict[str, Any]]] = {}

    def gpu_names(self) -> list[str]:
        return offers.gpu_names(self._books.machines)

    def offer_rows(self, interruptible: bool, allocated_gb: float) -> list[dict[str, Any]]:
        with self._books.reading() as (state, now):
            taken = {one.machine_id for one in state.instances.values() if one.live}
            return self._offers.rows(now, state.raised, taken, interruptible, allocated_gb)

    def stored_rows(self) -> list[dict[str, Any]]:
        """Every instance in the columns that a list filters and orders by; not to be changed."""
        with self._books.reading() as (state, _now):
            return [self._stored_as_held(one) for one in state.instances.values() if one.phase is not Phase.GONE]

    def instance_rows(self, instance_ids: list[int] | None = None) -> list[dict[str, Any]]:
        """These instances as the API lists them, in the given order; all that it lists when none are given."""
        with self._books.reading() as (state, _now):
            numbers = [row["id"] for row in self.stored_rows()] if instance_ids is None else instance_ids
            return [self._listed(state.instances[number]) for number in numbers]

    def find_row(self, instance_id: int) -> dict[str, Any] | None:
        with self._books.reading() as (state, _now):
            instance = state.instances.get(instance_id)
            if instance is None or instance.phase is Phase.GONE or self._is_only_listed(instance):
                return None
            return self._row(instance)

    def _row(self, instance: Instance) -> dict[str, Any]:
        books = self._books
        machine = books.machine(instance.machine_id)
        row = instance_row(instance, machine, books.clock.now(), books.floor(machine), books.config.stopped_as)
        unheard = books.holds.unheard_as(instance.id)
        return {**row, "actual_status": unheard, "ports": {}} if unheard else row

    def _listed(self, instance: Instance) -> dict[str, Any]:
        row = self._row(instance)
        return {**row, **instances.AS_IT_RAN} if self._is_only_listed(instance) else row

    def _is_only_listed(self, instance: Instance) -> bool:
        return instance.phase is Phase.UNLOADED and self._books.holds.holds(instance.id, Held.ONLY_LISTED)

    def _stored_as_held(self, instance: Instance) -> dict[str, Any]:
        """As :meth:`_listed` shows it, in the stored columns."""
        row = self._stored_row(instance)
        unheard = self._books.holds.unheard_as(instance.id)
        if unheard:
            row = {**row, "actual_status": unheard}
        return {**row, **instances.AS_IT_RAN} if self._is_only_listed(instance) else row

    def _stored_row(self, instance: Instance) -> dict[str, Any]:
        known = self._stored.get(instance.id)
        if known is None or known[0] is not instance:
            machine = self._books.machine(instance.machine_id)
            known = (instance, stored_row(instance, machine, self._books.config.stopped_as))
            self._stored[instance.id] = known
        return known[1]
