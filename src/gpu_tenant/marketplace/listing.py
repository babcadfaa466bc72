# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a search and a list of instances show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import instances, offers
from .books import Books
from .filters import in_order, matching
from .holds import Held
from .instances import Instance, Phase
from .offer_table import MOVING as MOVING_OFFER
from .offer_table import OfferTable
from .ready_rows import ReadyRow, StillRow
from .rows import MOVING, instance_row, moving_columns, no_ports, stored_row


class Listing:
    def __init__(self, books: Books) -> None:
        self._books = books
        self._offers = OfferTable(books.machines_by_id)
        self._stored: dict[int, tuple[Instance, dict[str, Any]]] = {}
        self._still: dict[int, tuple[Instance, float, StillRow]] = {}
        self._taken_at = -1
        self._taken: frozenset[int] = frozenset()
        self._listed_at: tuple[int, int] | None = None
        self._all_stored: list[dict[str, Any]] = []

    def gpu_names(self) -> list[str]:
        return offers.gpu_names(self._books.machines)

    def offer_rows(self, interruptible: bool, allocated_gb: float) -> list[ReadyRow]:
        now, rows = self._offer_rows(interruptible, allocated_gb)
        return [self._offers.shown(row, now) for row in rows]

    def found_offers(
        self, interruptible: bool, allocated_gb: float, filters: Mapping[str, Any], order: list[Any], limit: int
    ) -> list[ReadyRow]:
        """The offers that a search shows. BadFilter as :func:`.filters.matching` and :func:`.filters.in_order`."""
        now, every = self._offer_rows(interruptible, allocated_gb)
        strict = self._books.config.dialect.unknown_filter == "refused"
        rows = [row for row in every if row["disk_space"] >= allocated_gb]
        if MOVING_OFFER & _named_by(filters, order):
            shown = [self._offers.shown(row, now) for row in rows]
            return in_order(matching(shown, filters, strict=strict), order)[:limit]
        return [self._offers.shown(row, now) for row in in_order(matching(rows, filters, strict=strict), order)[:limit]]

    def _offer_rows(self, interruptible: bool, allocated_gb: float) -> tuple[float, list[StillRow]]:
        with self._books.reading() as (state, now):
            if self._taken_at != self._books.changes:
                self._taken = frozenset(one.machine_id for one in state.instances.values() if one.live)
                self._taken_at = self._books.changes
            return now, self._offers.rows(now, self._books.prices(), self._taken, interruptible, allocated_gb)

    def stored_rows(self) -> list[dict[str, Any]]:
        """Every instance in the columns that a list filters and orders by; not to be changed."""
        with self._books.reading() as (state, _now):
            made_of = (self._books.changes, state.holds.changes)
            if self._listed_at != made_of:
                living = (one for one in state.instances.values() if one.phase is not Phase.GONE and one.terms is None)
                self._all_stored = [self._stored_as_held(one) for one in living]
                self._listed_at = made_of
            return self._all_stored

    def instance_rows(self, instance_ids: list[int] | None = None) -> list[Mapping[str, Any]]:
        """These instances as the API lists them, in the given order; all that it lists when none are given."""
        with self._books.reading() as (state, _now):
            numbers = [row["id"] for row in self.stored_rows()] if instance_ids is None else instance_ids
            return [self._listed(state.instances[number]) for number in numbers]

    def find_row(self, instance_id: int) -> Mapping[str, Any] | None:
        with self._books.reading() as (state, _now):
            instance = state.instances.get(instance_id)
            if instance is None or instance.phase is Phase.GONE or instance.terms is not None:
                return None
            if self._is_only_listed(instance):
                return None
            return self._row(instance)

    def _row(self, instance: Instance) -> Mapping[str, Any]:
        books = self._books
        machine, now = books.machine(instance.machine_id), books.clock.now()
        floor = books.floor(machine)
        known = self._still.get(instance.id)
        if known is None or known[0] is not instance or known[1] != floor:
            whole = instance_row(instance, machine, now, floor, books.config.dialect)
            known = (instance, floor, StillRow(whole, MOVING))
            self._still[instance.id] = known
        row = ReadyRow(known[2], moving_columns(instance, machine, now))
        unheard = books.holds.unheard_as(instance.id)
        return {**row, "actual_status": unheard, "ports": no_ports(books.config.dialect)} if unheard else row

    def _listed(self, instance: Instance) -> Mapping[str, Any]:
        row = self._row(instance)
        return {**row, **instances.AS_IT_RAN} if self._is_only_listed(instance) else row

    def _is_only_listed(self, instance: Instance) -> bool:
        return instance.phase is Phase.UNLOADED and self._books.holds.holds(instance.id, Held.ONLY_LISTED)

    def _stored_as_held(self, instance: Instance) -> dict[str, Any]:
        """As :meth:`_listed` shows it, in the stored columns."""
        row = self._stored_row(instance)
        if not self._books.holds:
            return row
        unheard = self._books.holds.unheard_as(instance.id)
        if unheard:
            row = {**row, "actual_status": unheard}
        return {**row, **instances.AS_IT_RAN} if self._is_only_listed(instance) else row

    def _stored_row(self, instance: Instance) -> dict[str, Any]:
        known = self._stored.get(instance.id)
        if known is None or known[0] is not instance:
            machine = self._books.machine(instance.machine_id)
            known = (instance, stored_row(instance, machine, self._books.config.dialect))
            self._stored[instance.id] = known
        return known[1]


def _named_by(filters: Mapping[str, Any], order: list[Any]) -> set[str]:
    """The columns that a search filters or orders by, as its client named them."""
    return {*filters, *(str(entry[0]) for entry in order if isinstance(entry, (list, tuple)) and entry)}
