# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What is done to vast's boxes beside what is done to all: bids, restarts, price rises. Renting is in ``rental``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, ClassVar, Mapping

from .. import power_record
from ..accrual import ACCEPT_PRICE_RISE
from ..failures import TenantFailure
from ..leftovers import Leftover
from ..rental_account import DESTROY, REBOOT, RECYCLE, STOP, Passed, RentalAccount, identity_of
from ..rented_box import Box, started_epoch
from . import payment_record
from .api import VastClient
from .offers import Constraints, bid_within
from .price_rises import PriceRise
from .reservation import loss_of, pay
from .transformations import to_box
from .volumes import to_volume, volumes_left
from .waiters import StuckWatch, stuck, wait_for_restart

PLATFORM = "vast"


@dataclass
class Account(RentalAccount[Box]):
    """One account of vast.ai's, as seen from one state store."""

    client: VastClient

    PLATFORM = PLATFORM
    CLIENT = VastClient
    KEEPS: ClassVar = {
        DESTROY: ("volume",),
        STOP: ("disk", "volume"),
        REBOOT: ("disk", "volume"),
        # The container is made anew from its image; what lay on its disk is gone.
        RECYCLE: ("volume",),
    }

    def to_box(self, row: Mapping[str, Any]) -> Box:
        return to_box(dict(row))

    def leftovers(self) -> list[Leftover]:
        return volumes_left(self)

    def volume_rates(self, project: str) -> dict[str, float | None]:
        volumes = [volume for volume in map(to_volume, self.client.list_volumes()) if volume is not None]
        ours = [volume for volume in volumes if volume.stamp.project == project]
        return {volume.identity.provider_id: volume.price_per_hour for volume in ours}

    def facts_of(self, box: Box) -> dict[str, Any]:
        return {"machine_id": box.machine_id, "host_id": box.host_id}

    def watch(self, box: Box) -> Callable[[Box], str]:
        return StuckWatch(self.client, box).verdict

    def stuck(self, box: Box, reason: str, fix: str = "") -> TenantFailure:
        return stuck(box, reason, fix)

    def start(self, box: Box, wanted: Constraints, wait_s: float) -> Box:
        """Start a box, its bid raised within the cap first if it was outbid, and wait until it runs."""
        bid = bid_to_start(box, wanted)
        with self.effect("start", box, bid=bid):
            power_record.note_start(self.store, identity_of(box))
            if bid is not None:
                self.client.change_bid(box.provider_id, bid)
            self.client.set_state(box.provider_id, "running")
        return self.await_running(box, wait_s)

    def restart(self, box: Box, verb: str, wait_s: float) -> tuple[Box, Passed]:
        """Reboot or recycle a box that runs, through the gate with what the verb keeps, and wait until it runs again.

        TenantFailure when the provider's answer is lost: a second one would restart it once more.
        """
        passed = self.pass_gate(box, verb)
        since = started_epoch(box, self.client.provider_now())
        with self.effect(verb, box, rule=passed.rule, approval_id=passed.approval_id):
            self._recheck(box, since)
            with self._spending(passed):
                self.client.restart_instance(box.provider_id, verb)
                power_record.note_start(self.store, identity_of(box))
        wait_for_restart(self.client, box, lambda: self.look(box))
        return self.await_running(box, wait_s), passed

    def answer_price_rise(self, box: Box, rise: PriceRise, accept: bool) -> bool:
        """Accept or reject what the box's host asks from now on; False when it asks no more."""
        asked = {"new_price_per_hour": rise.price_per_hour, "new_stopped_per_hour": rise.storage_per_hour}
        with self.effect(ACCEPT_PRICE_RISE if accept else "reject_price_rise", box, **asked) as effect:
            effect.details["taken"] = taken = self.client.answer_price_rise(rise.rise_id, accept)
            return taken

    def prepay(self, box: Box, amount: float) -> dict[str, float]:
        """Pay ahead for a box on demand, once in its generation; months and discount that it brought."""
        # Alone on the account, so that no two processes find nothing paid.
        with self.lock():
            payment_record.check_unpaid(self.store, box)
            with self.effect("prepay", box, amount=amount) as effect:
                payment_record.note_sending(self.store, box, amount)
                paid = pay(self.client, box, amount, lambda: payment_record.note_refused(self.store, box))
                payment_record.note_paid(self.store, box)
                effect.details.update(paid)
                return paid

    def loss_of(self, box: Box) -> str:
        return loss_of(self.client, box)


def bid_to_start(box: Box, wanted: Constraints) -> float | None:
    """The new bid that starting needs, None when it needs none. TenantFailure when the cap does not allow the start."""
    storage = box.storage_per_hour
    if storage is None and box.dph_total is not None and box.bid is not None:
        storage = box.dph_total - box.bid
    if not box.is_bid:
        _check_cap(box, box.dph_total, wanted)
        return None
    if storage is None or box.bid is None or box.min_bid is None:
        raise _no_start(box, "the provider does not say what it would cost", "look at it in the provider's console")
    if box.min_bid <= box.bid:
        _check_cap(box, box.bid + storage, wanted)
        return None
    bid = bid_within(box.min_bid, storage, wanted)
    if bid + 1e-9 < box.min_bid:
        least = box.min_bid + storage
        raise _no_start(
            box,
            f"the market asks ${least:.4f} an hour, disk included, and price_cap is ${wanted.price_cap}",
            f"raise price_cap to at least {least:.4f}, or rent another offer",
        )
    return bid


def _check_cap(box: Box, price: float | None, wanted: Constraints) -> None:
    if price is None:
        raise _no_start(box, "the provider does not say what it would cost", "look at it in the provider's console")
    if wanted.price_cap is not None and price > wanted.price_cap + 1e-9:
        raise _no_start(
            box,
            f"it costs ${price:.4f} an hour and price_cap is ${wanted.price_cap}",
            f"raise price_cap to at least {price:.4f}, or rent another offer",
        )


def _no_start(box: Box, why: str, fix: str) -> TenantFailure:
    name = box.stamp.box if box.stamp else ""
    what = f"instance {box.provider_id} was not started: {why}"
    return TenantFailure("no_offer", what, box=name, safe="its disk is kept", fix=fix)
