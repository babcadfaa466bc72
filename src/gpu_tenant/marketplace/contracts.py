# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a tenant does with an instance: rent, start, stop, restart, label, destroy."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from . import instances
from .auction import Auction
from .books import Books
from .boxes import Boxes
from .instances import Instance, Phase
from .lambda_cloud.terms import VmTerms
from .offers import Machine
from .paperspace.terms import CoreTerms
from .refusals import MarketError, no_such_offer
from .runpod.terms import PodTerms

MOST_PORTS = 64
_ASKED = re.compile(r"-p \d{1,5}:(\d{1,5})(/udp)?\Z")


def asked_ports(environment: Mapping[str, str]) -> list[str]:
    """The ports beside ssh's that docker flags in an instance's environment ask for, as ``8080/tcp``."""
    found = [_ASKED.match(flag) for flag in environment]
    asked = {f"{match[1]}/{'udp' if match[2] else 'tcp'}" for match in found if match is not None}
    return sorted(asked - {"22/tcp"})


@dataclass(frozen=True)
class Order:
    """What a tenant asks for when renting. Disk in GB, price in dollars per hour or None for on-demand.

    :param pod: for a pod of RunPod's side, :attr:`vm` for an instance of Lambda's, :attr:`core` for a machine of
        Paperspace's: it costs what its terms say.
    """

    offer_id: int
    image: str
    runtype: str
    disk_gb: float
    price: float | None = None
    label: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    onstart: str | None = None
    args: tuple[str, ...] = ()
    stopped: bool = False
    cancel_unavailable: bool = False
    template: dict[str, Any] = field(default_factory=dict)
    pod: PodTerms | None = None
    vm: VmTerms | None = None
    core: CoreTerms | None = None

    @property
    def terms(self) -> PodTerms | VmTerms | CoreTerms | None:
        return self.pod or self.vm or self.core

    @property
    def ports(self) -> list[str]:
        """Beside ssh's, as ``8080/tcp``."""
        return asked_ports(self.env) if self.terms is None else self.terms.mapped_ports()


class Contracts:
    def __init__(self, books: Books, boxes: Boxes, auction: Auction) -> None:
        self._books = books
        self._boxes = boxes
        self._auction = auction

    def rent(self, order: Order) -> Instance:
        """A new instance.

        :raises MarketError: ``new_contract`` names the stopped instance that an insufficient bid leaves.
        """
        books = self._books
        with books.lock:
            books.check_credit()
            machine = self._open_machine(order)
            now = books.clock.now()
            instance = self._new_instance(order, machine, now)
            if not order.stopped:
                instance = replace(instance, wants_card=True)
            books.put(instance)
            loser = not order.stopped and self._auction.holder(machine) is not instance
            if loser:
                books.put(instances.outbid(instance, now))
            books.save()
        self._auction.settle(machine)
        if loser:
            raise MarketError(
                400,
                "invalid_price",
                f"Your bid of ${order.price:g} is below the ${books.floor(machine):g} that this machine costs now; "
                f"instance {instance.id} was created stopped",
                ask_id=order.offer_id,
                new_contract=instance.id,
            )
        return books.instance(instance.id)

    def _open_machine(self, order: Order) -> Machine:
        """The machine that an order can have. MarketError says why it cannot."""
        machine = self._books.find_offer(order.offer_id)
        if machine is None or not self._auction.lets(machine, order.price):
            raise no_such_offer(order.offer_id)
        if order.disk_gb > machine.disk_space:
            raise MarketError(
                400,
                "invalid_args",
                f"disk {order.disk_gb:g} GB: the machine has {machine.disk_space:g} GB",
                ask_id=order.offer_id,
            )
        if len(order.ports) > min(machine.direct_ports, MOST_PORTS):
            message = f"The machine opens {min(machine.direct_ports, MOST_PORTS)} ports."
            raise MarketError(400, "invalid_args", message, ask_id=order.offer_id)
        if order.cancel_unavailable and order.price is not None and order.price < self._books.floor(machine):
            message = "The bid does not win; nothing was created."
            raise MarketError(410, "no_such_ask", message, ask_id=order.offer_id)
        return machine

    def _new_instance(self, order: Order, machine: Machine, now: float) -> Instance:
        state = self._books.state
        ports = self._books.free_ports(order.runtype)
        return Instance(
            id=state.take_id(),
            offer_id=order.offer_id,
            machine_id=machine.machine_id,
            created_at=now,
            price=order.price,
            base_price=_price_of(order, machine),
            storage_cost=machine.storage_cost if order.terms is None else order.terms.resting_gb_month,
            disk_gb=order.disk_gb,
            image=order.image,
            runtype=order.runtype,
            ports=ports,
            mapped=self._books.map_ports(order.ports, ports),
            label=order.label,
            env=order.env,
            onstart=order.onstart,
            args=order.args,
            template=order.template,
            keys=state.keys,
            api_key=secrets.token_hex(32),
            pod=order.pod,
            core=order.core,
            vm=order.vm,
        )

    def start(self, instance_id: int) -> None:
        books = self._books
        with books.lock:
            instance = books.instance(instance_id)
            machine = books.machine(instance.machine_id)
            books.check_credit()
            if instances.is_over(instance, books.clock.now()):
                raise MarketError(400, "invalid_args", f"The contract of instance {instance_id} ended.")
            wanting = instances.claim(instance)
            books.put(wanting)
            if wanting is not instance and self._auction.holder(machine) is not wanting:
                books.put(instances.scheduling(wanting, books.clock.now()))
            elif instance.phase is Phase.EXITED:
                books.put(instances.restart(wanting, Phase.LOADING))
                self._boxes.launch(instance_id)
            books.save()
        self._auction.settle(machine)

    def stop(self, instance_id: int) -> None:
        books = self._books
        with books.lock:
            instance = books.instance(instance_id)
            books.put(instances.stop(instance, books.clock.now()))
            books.save()
        self._boxes.halt(instance_id)
        self._auction.settle(books.machine(instance.machine_id))

    def destroy(self, instance_id: int) -> None:
        books = self._books
        with books.lock:
            instance = books.instance(instance_id)
            books.put(instances.destroy(instance, books.clock.now()))
            books.save()
        self._boxes.halt(instance_id)
        self._boxes.remove(instance_id)
        self._auction.settle(books.machine(instance.machine_id))

    def restart(self, instance_id: int, phase: Phase) -> None:
        """Reboot or recycle a running box. MarketError (400 invalid_args) for another."""
        books = self._books
        with books.lock:
            instance = books.instance(instance_id)
            if instance.phase not in (Phase.RUNNING, Phase.EXITED):
                raise MarketError(400, "invalid_args", f"Instance {instance_id} is not running.")
            books.put(instances.restart(instance, phase))
            books.save()
            self._boxes.launch(instance_id, wipe=phase is Phase.RECYCLING)

    def label(self, instance_id: int, label: str) -> None:
        books = self._books
        with books.lock:
            books.put(replace(books.instance(instance_id), label=label or None))
            books.save()

    def say(self, instance_id: int, message: str) -> None:
        """Show a status message on an instance, if it is still there."""
        with self._books.lock:
            instance = self._books.state.instances.get(instance_id)
            if instance is not None and instance.live:
                self._books.put(replace(instance, status_msg=message))


def _price_of(order: Order, machine: Machine) -> float:
    """Dollars for an hour of compute."""
    if order.terms is not None:
        return order.terms.compute_rate
    return machine.price if order.price is None else order.price
