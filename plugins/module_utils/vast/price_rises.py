# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Hosts that raise their prices: what a box would cost then, and what is answered.

A rise that nobody accepts costs nothing: the rental goes on at the old price and is no longer extended by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from ..box.records import is_count
from ..rented_box import Box, number, utc_of
from .api import VastClient, VastError

TELL, ACCEPT, ACCEPT_OR_REJECT = "tell", "accept", "accept_or_reject"
POLICIES = (TELL, ACCEPT, ACCEPT_OR_REJECT)
_HOUR_S = 3600.0
_TRAFFIC = ("bwu", "bwd")


@dataclass(frozen=True)
class PriceRise:
    """One rise that waits for an answer.

    :param price_per_hour: compute and disk once it is accepted; None when the rows do not tell.
    :param storage_per_hour: the disk's part of it.
    :param traffic: the dollars a GB that rise, by direction (``bwd``, ``bwu``), each with what is paid now.
    :param rental_ends: when the rental ends if it is not accepted, epoch seconds.
    """

    rise_id: int
    price_per_hour: float | None
    storage_per_hour: float | None
    traffic: Mapping[str, tuple[float | None, float]]
    rental_ends: float | None
    extended_to: float | None

    def objection(self, cap: float | None) -> str:
        """Why the cap does not consent to it; empty when it does."""
        if self.price_per_hour is None:
            return "the provider does not say what an hour would cost"
        if self.traffic:
            return "traffic gets dearer, and price_cap says nothing of traffic"
        if cap is None or self.price_per_hour > cap + 1e-6:
            return f"an hour would cost ${self.price_per_hour:.4f}, and price_cap is ${cap}"
        return ""


def rises_of(box: Box, rows: Sequence[Mapping[str, Any]]) -> list[PriceRise]:
    """The rises that concern a box."""
    found = []
    for row in rows:
        rise_id = row.get("pending_price_increase_id")
        if is_count(rise_id) and str(row.get("contract_id")) == box.provider_id:
            ends, later = number(row.get("contract_end_date")), number(row.get("ask_end_date"))
            price, storage = _prices_after(box, row)
            found.append(PriceRise(rise_id, price, storage, _dearer_traffic(row), ends, later))
    return found


def pending_rises(client: VastClient, box: Box) -> tuple[list[PriceRise], str]:
    """The rises that wait for a box's tenant, and why they may not be all of them.

    A question that fails is no reason to let a box lie that has work to do.
    """
    try:
        rows, whole = client.pending_price_rises()
    except VastError as error:
        if error.kind == "config":
            raise
        return [], f"whether its host raised the price of instance {box.provider_id} is not known: {error.what}"
    found = rises_of(box, rows)
    if found or whole:
        return found, ""
    return [], f"the list of raised prices is cut short, and says nothing of instance {box.provider_id}"


def verdict_on(rise: PriceRise, policy: str, cap: float | None) -> str:
    """``accepted``, ``rejected`` or ``told``."""
    objection = rise.objection(cap)
    if policy == TELL:
        return "told"
    if not objection:
        return "accepted"
    # What cannot be weighed is not answered by a machine.
    return "rejected" if policy == ACCEPT_OR_REJECT and rise.price_per_hour is not None else "told"


def rise_result(rise: PriceRise, box: Box, verdict: str, cap: float | None) -> dict[str, Any]:
    """A rise as ``vast_instance`` returns it."""
    return {
        "id": rise.rise_id,
        "provider_id": box.provider_id,
        "verdict": verdict,
        "objection": rise.objection(cap),
        "price_per_hour": box.dph_total,
        "new_price_per_hour": None if rise.price_per_hour is None else round(rise.price_per_hour, 6),
        "new_traffic_per_gb": {name: after for name, (_before, after) in rise.traffic.items()},
        "rental_ends": utc_of(rise.rental_ends),
        "extended_to": utc_of(rise.extended_to),
    }


def warning_of(told: Mapping[str, Any]) -> str:
    """What a person must know of a rise that was not accepted."""
    after, ends = told["new_price_per_hour"], told["rental_ends"]
    price = "an unknown price" if after is None else f"${after:.4f} an hour"
    what = f"the host of instance {told['provider_id']} asks {price} from now on ({told['id']})"
    because = f": {told['objection']}" if told["objection"] else ""
    if told["verdict"] == "rejected":
        return f"{what}; it was rejected{because}. The rental ends {ends or 'as it was to'}: harvest before"
    return (
        f"{what}; it was not answered{because}. Until it is accepted the old price holds and the rental ends "
        f"{ends or 'as it was to'}: raise price_cap and set price_rises: accept, or move on before"
    )


def _prices_after(box: Box, row: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Compute and disk once it is accepted, and the disk alone. An interruptible box pays its bid, which no host
    raises."""
    fee, fee_before = number(row.get("new_platform_fee")), number(row.get("old_platform_fee"))
    if fee is not None and fee != fee_before:
        return None, None
    card, storage = number(row.get("new_gpu_costpersec")), number(row.get("new_disk_ram_costpersec"))
    disk = box.storage_per_hour
    if storage is not None:
        disk = None if box.disk_gb is None else storage * _HOUR_S * box.disk_gb
    if box.is_bid:
        compute = box.bid
    elif card is not None:
        compute = None if box.num_gpus is None else card * _HOUR_S * box.num_gpus
    else:
        known = box.dph_total is not None and box.storage_per_hour is not None
        compute = (box.dph_total or 0.0) - (box.storage_per_hour or 0.0) if known else None
    return None if compute is None or disk is None else compute + disk, disk


def _dearer_traffic(row: Mapping[str, Any]) -> dict[str, tuple[float | None, float]]:
    dearer = {}
    for name in _TRAFFIC:
        before, after = number(row.get(f"old_{name}_cost")), number(row.get(f"new_{name}_cost"))
        if after is not None and (before is None or after > before):
            dearer[name] = (before, after)
    return dearer
