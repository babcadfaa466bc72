# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The market's offers, searched and ranked: what ``vast_offer_info`` returns."""

from __future__ import annotations

from typing import Any

from ..box import records
from ..failures import TenantFailure
from ..journal import Journal
from ..state_store import StateStore
from .api import VastClient
from .offers import LEAST_DISK_GB, Constraints, Offer, Price, loose_body, nothing_found, search_body, to_offer
from .ranking import Cost, Work, explained, ranked
from .reputation import NO_EXPERIENCE, Reputation, from_journal
from .search_query import check_query

# More than is shown: the server orders by price, and the best by cost may come later.
_LEAST_ASKED = 64
_LOOSE_LIMIT = 256


def search(
    client: VastClient, wanted: Constraints, work: Work, limit: int, known: Reputation = NO_EXPERIENCE
) -> list[dict[str, Any]]:
    """The market's offers, ranked, each with its reasons. TenantFailure ``no_offer`` that says what shut them out."""
    check_query(wanted.query)
    if wanted.min_disk_gb < LEAST_DISK_GB:
        raise TenantFailure(
            "config",
            f"min_disk_gb is {wanted.min_disk_gb:g} GB, and the market rents no disk below {LEAST_DISK_GB:g} GB",
            safe="nothing was rented",
        )
    found = [to_offer(row) for row in client.search_offers(search_body(wanted, max(limit, _LEAST_ASKED)))]
    best = ranked(found, wanted, work, known)[:limit]
    if not best:
        everything = [to_offer(row) for row in client.search_offers(loose_body(wanted, _LOOSE_LIMIT))]
        raise nothing_found(everything or found, wanted)
    return [offer_result(offer, price, cost, wanted, work) for offer, price, cost in best]


def reputation_of(state_dir: str | None) -> Reputation:
    """What the journal of this state store tells of machines; nothing without a store or a journal."""
    if not state_dir:
        return NO_EXPERIENCE
    return from_journal(Journal(StateStore(state_dir)).lines(), records.utc_now())


def offer_result(offer: Offer, price: Price, cost: Cost, wanted: Constraints, work: Work) -> dict[str, Any]:
    """An offer as ``vast_offer_info`` returns it; prices rounded to a ten-thousandth of a cent."""
    return {
        "id": offer.offer_id,
        "machine_id": offer.machine_id,
        "host_id": offer.host_id,
        "gpu_name": offer.gpu_name,
        "num_gpus": offer.num_gpus,
        "gpu_ram": offer.gpu_ram_mb,
        "disk_space": offer.disk_gb,
        "cuda_max_good": offer.cuda_max,
        "reliability": offer.reliability,
        "direct_port_count": offer.direct_ports,
        "verified": offer.verified,
        "geolocation": offer.geolocation,
        "market": wanted.market,
        "min_bid": offer.min_bid,
        "bid": price.bid,
        "storage_cost": offer.storage_per_gb_month,
        "storage_per_hour": round(price.storage, 6),
        "price_per_hour": round(price.total, 6),
        "inet_down_cost": offer.download_per_gb,
        "inet_up_cost": offer.upload_per_gb,
        "inet_down": offer.download_mbps,
        "inet_up": offer.upload_mbps,
        "dph_base": offer.compute_per_hour,
        "available_hours": None if offer.available_s is None else round(offer.available_s / 3600, 1),
        **explained(offer, price, cost, work),
    }
