# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The rows of a search, built once for each state of a machine: a search looks at every offer and shows a few."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from .offers import Machine, moments, offer_row
from .ready_rows import ReadyRow, StillRow

# Columns that change with the clock alone.
MOVING = frozenset({"start_date", "end_date"})
# Searches differ in market and disk; each pair has its prices.
KEPT_TABLES = 8


@dataclass
class _Table:
    """The rows for one market and disk, each with the machine, the price and the rentability it was built for.

    :param made_of: what :attr:`rows` was made of, the prices and what was let.
    """

    known: dict[int, tuple[Machine, float, bool, StillRow]] = field(default_factory=dict)
    made_of: tuple[dict[int, float], Collection[int]] | None = None
    rows: list[StillRow] = field(default_factory=list)


class OfferTable:
    """Not safe for threads: the market's lock guards it.

    :param machines: by their ids, as they are whenever rows are asked for.
    """

    def __init__(self, machines: Mapping[int, Machine]) -> None:
        self._machines = machines
        self._tables: dict[tuple[bool, float], _Table] = {}

    def rows(
        self,
        now: float,
        raised: Mapping[int, float],
        taken: Collection[int],
        interruptible: bool,
        allocated_gb: float,
    ) -> list[StillRow]:
        """Every offer without the columns of :data:`MOVING`, not to be changed; :meth:`shown` completes one.

        :param raised: prices above the machines' own, by machine id.
        :param taken: ids of machines that are let; another object when they are others.
        """
        table = self._table(interruptible, allocated_gb)
        if table.made_of is not None and table.made_of[1] is taken and table.made_of[0] == raised:
            return table.rows
        table.made_of = ({**raised}, taken)
        table.rows = []
        for number, machine in self._machines.items():
            price = raised.get(number, machine.min_bid)
            rentable = number not in taken
            known = table.known.get(number)
            if known is None or known[0] is not machine or known[1:3] != (price, rentable):
                row = offer_row(machine, now, price, rentable, interruptible, allocated_gb)
                table.known[number] = known = (machine, price, rentable, StillRow(row, MOVING))
            table.rows.append(known[3])
        return table.rows

    def shown(self, row: StillRow, now: float) -> ReadyRow:
        """One of :meth:`rows`, whole."""
        started, ends = moments(self._machines[row["machine_id"]], now)
        return ReadyRow(row, {"start_date": started, "end_date": ends})

    def _table(self, interruptible: bool, allocated_gb: float) -> _Table:
        key = (interruptible, allocated_gb)
        if key not in self._tables and len(self._tables) >= KEPT_TABLES:
            del self._tables[next(iter(self._tables))]
        return self._tables.setdefault(key, _Table())
