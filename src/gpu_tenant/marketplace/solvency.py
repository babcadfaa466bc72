# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""An account without credit: its boxes are stopped at once, and deleted a day later with their disks.

The whole bill is too much to add up at every tick, so it is added up again when the credit could be used up at the
earliest: if all that there is to let were rented.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from . import instances
from .books import Books
from .boxes import Boxes
from .contracts import Contracts
from .money import Money

log = logging.getLogger(__name__)

# How long after the credit is gone boxes are deleted. The provider schedules it, and does not say for when.
GRACE_S = 86400.0
SHORTEST_LOOK_S = 1.0
STOPPED = "stopped: no credit left, scheduled for deletion"


class Solvency:
    """Does nothing unless the market was started with a credit."""

    def __init__(self, books: Books, boxes: Boxes, contracts: Contracts, money: Money) -> None:
        self._books = books
        self._boxes = boxes
        self._contracts = contracts
        self._money = money
        self._next_look = float("-inf")

    def pay_in(self, dollars: float) -> float:
        """More credit; what there is now. Boxes that were stopped stay so until their tenant starts them."""
        with self._books.changing() as (state, _now):
            state.paid_in += dollars
            credit = self._money.credit()
            if credit > 0:
                state.unpaid_since = None
            self._next_look = float("-inf")
            return credit

    def look(self) -> None:
        """Stop what nobody pays for, and delete what nobody paid for in time."""
        if self._books.config.credit is None:
            return
        with self._books.reading() as (state, now):
            if now < self._next_look:
                return
            credit = self._money.credit()
            self._next_look = now + max(SHORTEST_LOOK_S, 3600.0 * credit / self._most_per_hour())
            if credit > 0:
                return
            if state.unpaid_since is None:
                log.info("the credit is used up: every box is stopped")
                state.unpaid_since = now
                self._books.save()
            overdue = now - state.unpaid_since >= GRACE_S
            self._next_look = now + SHORTEST_LOOK_S
            living = [one for one in state.instances.values() if one.live]
            running = [one for one in living if one.wants_card or one.phase in instances.HOLDING_A_CARD]
            for instance in running:
                self._books.put(replace(instances.stop(instance, now), status_msg=STOPPED))
            if running:
                self._books.save()
        for instance in running:
            self._boxes.halt(instance.id)
        for instance in living if overdue else []:
            log.info("instance %d is deleted: nobody paid for it", instance.id)
            self._contracts.destroy(instance.id)

    def _most_per_hour(self) -> float:
        """Dollars an hour if every machine were rented whole, at what it costs now or at what is bid."""
        books = self._books
        let = sum(max(one.price, books.floor(one)) + one.storage_cost * one.disk_space / 720 for one in books.machines)
        return let + sum(one.base_price for one in books.state.instances.values() if one.live)
