# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The rows of a search, built once for each state of a machine: a search looks at every offer and shows a few."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .offers import Machine, moments, offer_row

# Searches differ in market and disk; each pair has its prices.
KEPT_TABLES = 8


class OfferTable:
    """Not safe for threads: the market's lock guards it."""

    def __init__(self, machines: list[Machine]) -> None:
        self._machines = machines
        self._tables: dict[tuple[bool, float], dict[int, tuple[float, bool, dict[str, Any]]]] = {}

    def rows(
        self,
        now: float,
        raised: Mapping[int, float],
        taken: Collection[int],
        interruptible: bool,
        allocated_gb: float,
    ) -> list[dict[str, Any]]:
        """Every offer; not to be changed.

        :param raised: prices above the machines' own, by machine id.
        :param taken: ids of machines that are let.
        """
        table = self._table(interruptible, allocated_gb)
        found = []
        for machine in self._machines:
            price = raised.get(machine.machine_id, machine.min_bid)
            rentable = machine.machine_id not in taken
            known = table.get(machine.machine_id)
            if known is None or known[:2] != (price, rentable):
                row = offer_row(machine, now, price, rentable, interruptible, allocated_gb)
                table[machine.machine_id] = known = (price, rentable, row)
            row = known[2]
            row["start_date"], row["end_date"] = moments(machine, now)
            found.append(row)
        return found

    def _table(self, interruptible: bool, allocated_gb: float) -> dict[int, tuple[float, bool, dict[str, Any]]]:
        key = (interruptible, allocated_gb)
        if key not in self._tables and len(self._tables) >= KEPT_TABLES:
            del self._tables[next(iter(self._tables))]
        return self._tables.setdefault(key, {})
