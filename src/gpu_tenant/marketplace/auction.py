# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Who has which machine's card, and what the market asks for it."""

from __future__ import annotations

import logging

from . import instances
from .books import Books
from .boxes import Boxes
from .holds import Held
from .instances import HOLDING_A_CARD, Instance
from .offers import Machine
from .refusals import MarketError

log = logging.getLogger(__name__)

OVERBID_FACTOR = 1.25


class Auction:
    def __init__(self, books: Books, boxes: Boxes) -> None:
        self._books = books
        self._boxes = boxes

    def holder(self, machine: Machine) -> Instance | None:
        """Whose the machine's card is. The lock is held."""
        able = [one for one in self._books.tenants(machine) if not self._books.holds.holds(one.id, Held.SCHEDULING)]
        return instances.holder_of_card(able, self._books.floor(machine))

    def lets(self, machine: Machine, price: float | None) -> bool:
        """Whether a machine is open to a bid, or on demand without one: free, or held by one that it beats."""
        holding = [one for one in self._books.tenants(machine) if one.live]
        if not holding:
            return True
        if price is None:
            return all(one.is_bid for one in holding)
        return all(one.price is not None and one.price < price for one in holding)

    def settle(self, machine: Machine) -> None:
        """Give the machine's card to whom it belongs now; returns when every loser's processes are dead.

        Calls engines, so the lock must not be held.
        """
        books = self._books
        with books.lock:
            now = books.clock.now()
            holder = self.holder(machine)
            losers = [one for one in books.tenants(machine) if one.phase in HOLDING_A_CARD and one is not holder]
            for loser in losers:
                books.put(instances.outbid(loser, now))
            if holder is not None and holder.phase not in HOLDING_A_CARD:
                books.put(instances.begin_start(holder))
                self._boxes.launch(holder.id)
            if losers or holder is not None:
                books.save()
        for loser in losers:
            log.info("instance %d was outbid", loser.id)
            self._boxes.halt(loser.id)

    def change_bid(self, instance_id: int, price: float | None) -> None:
        """A new bid, None for one that wins now. MarketError (400 invalid_args) for an on-demand instance."""
        books = self._books
        with books.lock:
            instance = books.instance(instance_id)
            if not instance.is_bid:
                raise MarketError(400, "invalid_args", f"Instance {instance_id} is on-demand; it has no bid.")
            machine = books.machine(instance.machine_id)
            winning = books.floor(machine) if price is None else price
            books.put(instances.change_bid(instance, winning, books.clock.now()))
            books.save()
        self.settle(machine)

    def preempt(self, instance_id: int) -> float:
        """Raise the market's price above the instance's bid; returns the new price when its processes are dead."""
        books = self._books
        with books.lock:
            instance = books.instance(instance_id)
            if instance.price is None:
                raise MarketError(400, "invalid_args", f"Instance {instance_id} is on-demand; nobody can outbid it.")
            machine = books.machine(instance.machine_id)
            raised = round(max(instance.price, books.floor(machine)) * OVERBID_FACTOR + 0.005, 4)
            books.state.raised[machine.machine_id] = raised
            books.save()
        self.settle(machine)
        return raised

    def release(self, instance_id: int) -> float:
        """The market's price falls to what it was; instances whose bid wins again come back."""
        books = self._books
        with books.lock:
            machine = books.machine_of(instance_id)
            books.state.raised.pop(machine.machine_id, None)
            books.save()
        self.settle(machine)
        return self._books.floor(machine)
