# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A host that raises its prices: its tenants are asked, and their contracts end when they were to, unless they accept.

Only the price of the card (on demand) and of the disk rise here; what a GB of traffic costs is a machine's for ever.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from . import instances
from .billing import HOUR_S, MONTH_H
from .instances import Instance
from .offers import Machine, moments
from .refusals import MarketError

if TYPE_CHECKING:
    from .books import Books
    from .boxes import Boxes

log = logging.getLogger(__name__)

PENDING, ACCEPTED, REJECTED = "pending", "accepted", "rejected"
_MONTH_S = MONTH_H * HOUR_S


@dataclass(frozen=True)
class PriceRise:
    """What a host asks of one tenant. Prices are dollars an hour for the whole machine, and a GB and month.

    :param ends_at: when the contract ends unless the rise is accepted, in market seconds.
    """

    id: int
    instance_id: int
    created_at: float
    ends_at: float
    extends_to: float
    old_compute: float
    new_compute: float | None
    old_storage: float
    new_storage: float | None
    status: str = PENDING


class PriceRises:
    def __init__(self, books: Books, boxes: Boxes) -> None:
        self._books = books
        self._boxes = boxes

    def ask(self, instance_id: int, compute: float | None, storage: float | None, ends_in_s: float | None) -> PriceRise:
        """The host asks more of an instance's tenant. MarketError (400) for what is no rise."""
        with self._books.changing() as (state, now):
            instance = self._books.instance(instance_id)
            if compute is None and storage is None:
                raise MarketError(400, "invalid_args", "Say what rises: compute_per_hour or storage_per_gb_month.")
            if not _is_more(compute, instance.base_price) or not _is_more(storage, instance.storage_cost):
                raise MarketError(400, "invalid_args", "A rise is above the price that the contract has.")
            if compute is not None and instance.is_bid:
                raise MarketError(400, "invalid_args", f"Instance {instance_id} pays its bid, which no host raises.")
            _started, extends_to = moments(self._books.machine(instance.machine_id), now)
            ends_at = extends_to if ends_in_s is None else now + ends_in_s
            rise = PriceRise(
                state.take_id(), instance_id, now, min(ends_at, instance.ends_at or ends_at), extends_to,
                instance.base_price, compute, instance.storage_cost, storage,
            )  # fmt: skip
            # A newer demand takes the place of one that is not answered.
            for other in [one for one in state.rises.values() if one.instance_id == instance_id]:
                if other.status == PENDING:
                    del state.rises[other.id]
            state.rises[rise.id] = rise
            self._books.put(replace(instance, ends_at=rise.ends_at))
            return rise

    def pending(self) -> list[PriceRise]:
        with self._books.reading() as (state, _now):
            return [one for one in state.rises.values() if one.status == PENDING and self._instance(one) is not None]

    def row(self, rise: PriceRise) -> dict[str, Any]:
        """As the API lists it: the card's price for one GPU, every price for a second."""
        machine = self._machine(rise)
        compute = None if rise.new_compute is None else rise.new_compute / machine.num_gpus / HOUR_S
        storage = None if rise.new_storage is None else rise.new_storage / _MONTH_S
        return {
            "pending_price_increase_id": rise.id,
            "contract_id": rise.instance_id,
            "host_id": machine.host_id,
            "new_gpu_costpersec": compute,
            "new_disk_ram_costpersec": storage,
            "new_bwu_cost": None,
            "new_bwd_cost": None,
            "new_platform_fee": None,
            "old_gpu_costpersec": rise.old_compute / machine.num_gpus / HOUR_S,
            "old_disk_ram_costpersec": rise.old_storage / _MONTH_S,
            "old_bwu_cost": machine.up_cost,
            "old_bwd_cost": machine.down_cost,
            "old_platform_fee": None,
            "contract_end_date": rise.ends_at,
            "ask_end_date": rise.extends_to,
            "created_at": rise.created_at,
        }

    def answer(self, rise_id: int, accepted: bool) -> PriceRise:
        """The tenant's answer. MarketError (404 no_pending_price_increase) for a demand that is none any more."""
        with self._books.changing() as (state, now):
            rise = state.rises.get(rise_id)
            instance = None if rise is None or rise.status != PENDING else self._instance(rise)
            if rise is None or instance is None:
                raise MarketError(404, "no_pending_price_increase", f"There is no pending price increase {rise_id}.")
            state.rises[rise_id] = replace(rise, status=ACCEPTED if accepted else REJECTED)
            if accepted:
                self._books.put(instances.accept_rise(instance, rise.new_compute, rise.new_storage, now))
            return state.rises[rise_id]

    def end_due(self) -> None:
        """Stop what runs although its contract ended, because its tenant did not accept."""
        with self._books.reading() as (state, now):
            asked = {rise.instance_id for rise in state.rises.values()}
            due = [one for one in map(state.instances.get, sorted(asked)) if one is not None and _is_due(one, now)]
            for instance in due:
                self._books.put(instances.contract_ended(instance, now))
            if due:
                self._books.save()
        for instance in due:
            log.info("instance %d: its contract ended", instance.id)
            self._boxes.halt(instance.id)

    def _instance(self, rise: PriceRise) -> Instance | None:
        instance = self._books.state.instances.get(rise.instance_id)
        return instance if instance is not None and instance.live else None

    def _machine(self, rise: PriceRise) -> Machine:
        return self._books.machine(self._books.state.instances[rise.instance_id].machine_id)


def _is_due(instance: Instance, now: float) -> bool:
    active = instance.wants_card or instance.phase in instances.HOLDING_A_CARD
    return active and instance.live and instances.is_over(instance, now)


def _is_more(asked: float | None, paid: float) -> bool:
    return asked is None or paid < asked < float("inf")
