# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Faults of state: what happens to an instance against the will of its tenant and of the market."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from . import instances
from .auction import Auction
from .books import Books
from .boxes import Boxes
from .contracts import Contracts
from .holds import LINGERING, NOT_BOOTING, Held, Hold
from .instances import HOLDING_A_CARD, Phase


class Incidents:
    def __init__(self, books: Books, boxes: Boxes, auction: Auction, contracts: Contracts) -> None:
        self._books = books
        self._boxes = boxes
        self._auction = auction
        self._contracts = contracts

    def held(self) -> list[dict[str, Any]]:
        with self._books.lock:
            return self._books.holds.as_dicts(self._books.clock.now())

    def hold(self, instance_id: int, state: Held, seconds: float | None, cause: int) -> None:
        """Hold an instance in a state, for seconds of market time or until :meth:`let_go`.

        :raises MarketError: (400) for an on-demand instance that shall be outbid.
        """
        books = self._books
        if state is Held.OUTBID:
            self._auction.preempt(instance_id)
        with books.lock:
            instance = books.instance(instance_id)
            now = books.clock.now()
            books.holds.add(Hold(instance_id, state, float("inf") if seconds is None else now + seconds, cause))
            down = books.holds.keeps_down(instance_id) and instance.phase in HOLDING_A_CARD
            if down:
                books.put(instances.waiting_to_boot(instance, now))
            elif state is Held.SCHEDULING and instance.phase in HOLDING_A_CARD:
                books.put(instances.scheduling(instance, now))
            books.save()
        if down:
            self._boxes.end_processes(instance_id)
        else:
            self._boxes.halt(instance_id)
            self._auction.settle(books.machine(instance.machine_id))

    def let_go(self, cause: int) -> None:
        """End what a fault holds; the instances do then what they were told last."""
        with self._books.lock:
            ended = self._end(self._books.holds.caused_by(cause))
        self._go_on_after(ended)

    def end_expired(self) -> None:
        """End what was to hold until now."""
        with self._books.lock:
            ended = self._end(self._books.holds.expired(self._books.clock.now()))
        self._go_on_after(ended)

    def revive(self, instance_id: int) -> None:
        """A box that was at rest starts, though nobody asked for it."""
        self._auction.release(instance_id)
        self._contracts.start(instance_id)

    def move_ports(self, instance_id: int) -> None:
        """The box answers on other ports from now on. What runs in it is lost, as by a reboot."""
        books = self._books
        with books.lock:
            instance = books.instance(instance_id)
            ports = books.free_ports(instance.runtype)
            books.put(replace(instance, ports=ports, mapped=books.map_ports(instance.mapped, ports)))
            books.save()
            if instance.phase is Phase.RUNNING:
                self._contracts.restart(instance_id, Phase.REBOOTING)

    def renew_host_key(self, instance_id: int) -> None:
        """The box has another host key from now on. MarketError (400) without one."""
        instance = self._books.instance(instance_id)
        self._boxes.renew_host_key(instance)
        if instance.phase is Phase.RUNNING:
            self._contracts.restart(instance_id, Phase.REBOOTING)

    def hamper(self, instance_id: int, state: Held, amount: float, seconds: float | None, cause: int) -> None:
        """A box that runs with a slow link or on a full disk, for seconds of market time or until :meth:`let_go`.

        It takes effect at a start, so one that runs is restarted; one with a full disk begins on it.

        :raises MarketError: (400) where the engine cannot.
        """
        books = self._books
        with books.lock:
            instance = books.instance(instance_id)
            self._boxes.check_hampers(instance_id, state)
            until = float("inf") if seconds is None else books.clock.now() + seconds
            books.holds.add(Hold(instance_id, state, until, cause, amount))
            if instance.phase in HOLDING_A_CARD:
                books.put(instances.restart(instance, Phase.LOADING))
                self._boxes.launch(instance_id, wipe=state is Held.DISK_FULL)
            books.save()

    def cut_sessions(self, instance_id: int) -> None:
        """End the connections to a box, which runs on. MarketError (400) where the engine cannot."""
        self._boxes.cut_sessions(self._books.instance(instance_id))

    def _end(self, ending: list[Hold]) -> list[Hold]:
        """Let boxes boot and rows vanish that nothing else holds; these holds. The lock is held."""
        books = self._books
        ended = books.holds.take(ending)
        for hold in ended:
            instance = books.state.instances[hold.instance_id]
            if hold.state is Held.SLOW_LINK:
                self._boxes.lift_link(instance.id)
            elif instance.phase is Phase.UNLOADED and hold.state in LINGERING:
                books.put(instances.vanish(instance))
            elif hold.state in NOT_BOOTING and instance.phase in HOLDING_A_CARD:
                books.put(instances.begin_start(instance))
                self._boxes.launch(instance.id)
        if ended:
            books.save()
        return ended

    def _go_on_after(self, ended: list[Hold]) -> None:
        """What prices and cards come to after holds ended. Calls engines, so the lock must not be held."""
        for hold in ended:
            instance = self._books.state.instances[hold.instance_id]
            if hold.state is Held.OUTBID and instance.live:
                self._auction.release(instance.id)
            else:
                self._auction.settle(self._books.machine(instance.machine_id))
