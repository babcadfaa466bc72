# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Offers: what to ask the market for, what an hour on one would bill, and which to refuse and why.

Which is the best of those that fit, :mod:`.ranking` says.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Mapping, Sequence

from ..failures import TenantFailure
from ..rented_box import HOURS_PER_MONTH, number
from .api import VastClient
from .query_text import filters_in

INTERRUPTIBLE = "interruptible"
ON_DEMAND = "on-demand"
MARKETS = (INTERRUPTIBLE, ON_DEMAND)
DEFAULT_BID_MARGIN = 0.1
# The market rents no smaller disk (vast.ai's documentation).
LEAST_DISK_GB = 10.0

_MB_PER_GB = 1000.0  # as the market's own client converts gpu_ram


@dataclass(frozen=True)
class Constraints:
    """What an offer must satisfy. Zero, empty or None means that the constraint is not set.

    ``price_cap`` is dollars an hour for compute and disk together. ``bulk_transfer`` declares that large files will
    move: only verified hosts with a direct port will do. ``only_machine`` is where the volumes of the box lie.
    """

    market: str = INTERRUPTIBLE
    gpu_name: str = ""
    num_gpus: int = 1
    min_gpu_ram_gb: float = 0.0
    min_disk_gb: float = 10.0
    min_cuda: float = 0.0
    min_reliability: float = 0.0
    direct_ports: int = 0
    price_cap: float | None = None
    bid: float | None = None
    bid_margin: float = DEFAULT_BID_MARGIN
    exclude_machines: tuple[int, ...] = ()
    verified: bool = True
    bulk_transfer: bool = False
    query: Mapping[str, Any] = field(default_factory=dict)
    only_machine: int | None = None

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Constraints:
        """From a module's options, which bear the same names. TenantFailure for numbers that make no sense."""
        given = {name: options[name] for name in cls.__dataclass_fields__ if options.get(name) is not None}
        given["exclude_machines"] = tuple(given.get("exclude_machines", ()))
        given["query"] = filters_in(given.get("query") or {})
        wanted = cls(**given)
        _check_positive("num_gpus", wanted.num_gpus)
        _check_positive("min_disk_gb", wanted.min_disk_gb)
        if wanted.price_cap is not None:
            _check_positive("price_cap", wanted.price_cap)
        if wanted.bid is not None:
            _check_positive("bid", wanted.bid)
        if wanted.bid_margin < 0:
            raise TenantFailure("config", f"bid_margin is {wanted.bid_margin}, it cannot be below 0")
        if wanted.bulk_transfer and (options.get("verified") is False or options.get("direct_ports") == 0):
            raise TenantFailure(
                "config",
                "bulk_transfer needs verified hosts with a direct port, and verified or direct_ports asks for others",
                safe="nothing was rented",
                fix="leave verified true and direct_ports at least 1, or do not declare bulk_transfer",
            )
        return wanted


def _check_positive(name: str, value: float) -> None:
    if not value > 0 or value == float("inf"):
        raise TenantFailure("config", f"{name} is {value}, it must be above 0", safe="nothing was rented")


@dataclass(frozen=True)
class Offer:
    """One offer. Prices are dollars an hour, or dollars a GB for bandwidth; None means that the host does not say."""

    offer_id: int
    machine_id: int | None
    host_id: int | None
    gpu_name: str
    num_gpus: int | None
    gpu_ram_mb: float | None
    disk_gb: float | None
    cuda_max: float | None
    reliability: float | None
    direct_ports: int
    verified: bool
    geolocation: str
    compute_per_hour: float | None
    storage_per_gb_month: float | None
    min_bid: float | None
    download_per_gb: float | None
    upload_per_gb: float | None
    download_mbps: float | None
    upload_mbps: float | None
    available_s: float | None

    def storage_per_hour(self, disk_gb: float) -> float | None:
        if self.storage_per_gb_month is None:
            return None
        return self.storage_per_gb_month * disk_gb / HOURS_PER_MONTH


@dataclass(frozen=True)
class Price:
    """What an hour on an offer would bill. ``bid`` is None on demand."""

    compute: float
    storage: float
    bid: float | None

    @property
    def total(self) -> float:
        return self.compute + self.storage


def to_offer(row: Mapping[str, Any]) -> Offer:
    """The offer in a market row (or in what ``vast_offer_info`` returned, which keeps the market's names)."""
    dph_base, dph_total = number(row.get("dph_base")), number(row.get("dph_total"))
    storage = number(row.get("storage_total_cost"))
    if dph_base is None and dph_total is not None and storage is not None:
        dph_base = dph_total - storage
    reliability = number(row.get("reliability2"))
    return Offer(
        offer_id=int(row["id"]),
        machine_id=_whole(row.get("machine_id")),
        host_id=_whole(row.get("host_id")),
        gpu_name=str(row.get("gpu_name") or ""),
        num_gpus=_whole(row.get("num_gpus")),
        gpu_ram_mb=number(row.get("gpu_ram")),
        disk_gb=number(row.get("disk_space")),
        cuda_max=number(row.get("cuda_max_good")),
        reliability=number(row.get("reliability")) if reliability is None else reliability,
        direct_ports=_whole(row.get("direct_port_count")) or 0,
        verified=row.get("verification") == "verified" or row.get("verified") is True,
        geolocation=str(row.get("geolocation") or ""),
        compute_per_hour=dph_base,
        storage_per_gb_month=number(row.get("storage_cost")),
        min_bid=number(row.get("min_bid")),
        download_per_gb=number(row.get("inet_down_cost")),
        upload_per_gb=number(row.get("inet_up_cost")),
        download_mbps=number(row.get("inet_down")),
        upload_mbps=number(row.get("inet_up")),
        available_s=number(row.get("duration")),
    )


def search_body(wanted: Constraints, limit: int) -> dict[str, Any]:
    """The search as the API takes it. The caller's raw ``query`` wins over what the constraints say."""
    body: dict[str, Any] = {"external": {"eq": False}, "rentable": {"eq": True}, "num_gpus": {"eq": wanted.num_gpus}}
    if wanted.verified or wanted.bulk_transfer:
        body["verified"] = {"eq": True}
    if wanted.gpu_name:
        body["gpu_name"] = {"eq": wanted.gpu_name.replace("_", " ")}
    for column, least in (
        ("gpu_ram", wanted.min_gpu_ram_gb * _MB_PER_GB),
        ("disk_space", wanted.min_disk_gb),
        ("cuda_max_good", wanted.min_cuda),
        ("reliability", wanted.min_reliability),
        ("direct_port_count", max(wanted.direct_ports, int(wanted.bulk_transfer))),
    ):
        if least:
            body[column] = {"gte": least}
    if wanted.only_machine is not None:
        body["machine_id"] = {"eq": wanted.only_machine}
    elif wanted.exclude_machines:
        body["machine_id"] = {"notin": sorted(wanted.exclude_machines)}
    body.update(_market_terms(wanted, limit))
    body.update(wanted.query)
    return {name: conditions for name, conditions in body.items() if conditions is not None}


def loose_body(wanted: Constraints, limit: int) -> dict[str, Any]:
    """A search for the same GPUs without any other constraint, to find out which constraint shut the door."""
    body: dict[str, Any] = {"rentable": {"eq": True}}
    if "num_gpus" not in wanted.query:
        body["num_gpus"] = {"eq": wanted.num_gpus}
    if wanted.gpu_name:
        body["gpu_name"] = {"eq": wanted.gpu_name.replace("_", " ")}
    body.update(_market_terms(wanted, limit))
    return body


def ids_body(offer_ids: Sequence[int], wanted: Constraints) -> dict[str, Any]:
    """A search for certain offers."""
    return {"id": {"in": list(offer_ids)}, **_market_terms(wanted, len(offer_ids))}


def _market_terms(wanted: Constraints, limit: int) -> dict[str, Any]:
    return {
        "type": "bid" if wanted.market == INTERRUPTIBLE else "on-demand",
        "order": [["min_bid" if wanted.market == INTERRUPTIBLE else "dph_total", "asc"]],
        "limit": limit,
        "allocated_storage": wanted.min_disk_gb,
    }


def price_of(offer: Offer, wanted: Constraints) -> Price | None:
    """What an hour would cost; None when the host does not say, because unknown is not free.

    An interruptible box bids ``bid``, or the least that runs plus the margin, whichever is more, but never so much
    that compute and disk together pass the cap.
    """
    storage = offer.storage_per_hour(wanted.min_disk_gb)
    if storage is None:
        return None
    if wanted.market == ON_DEMAND:
        return None if offer.compute_per_hour is None else Price(offer.compute_per_hour, storage, None)
    if offer.min_bid is None:
        return None
    bid = bid_within(offer.min_bid, storage, wanted)
    return Price(bid, storage, bid)


def bid_within(min_bid: float, storage: float, wanted: Constraints) -> float:
    """The bid under the cap: it may come out below ``min_bid``, which then means that the cap is too low."""
    bid = _round_up(max(min_bid * (1 + wanted.bid_margin), wanted.bid or 0.0))
    if wanted.price_cap is None:
        return bid
    return min(bid, _round_down(wanted.price_cap - storage))


def within_cap(offer: Offer, wanted: Constraints) -> bool:
    """Whether the offer can run under the cap: the whole price on demand, the least winning bid otherwise."""
    price = price_of(offer, wanted)
    if price is None:
        return False
    if wanted.price_cap is not None and price.total > wanted.price_cap + 1e-9:
        return False
    return price.bid is None or offer.min_bid is None or price.bid + 1e-9 >= offer.min_bid


Check = Callable[[Offer, Constraints], bool]

# The constraints in the order in which a reader would lift them, each with its words. A value that the host does not
# state fails: the constraint was set because it matters.
_CHECKS: list[tuple[str, Check]] = [
    ("gpu_name", lambda o, c: not c.gpu_name or "gpu_name" in c.query or _same_gpu(o.gpu_name, c.gpu_name)),
    # What the raw query says of a column wins, and the market has judged it.
    ("num_gpus", lambda o, c: "num_gpus" in c.query or o.num_gpus == c.num_gpus),
    ("min_gpu_ram_gb", lambda o, c: _at_least(o.gpu_ram_mb, c.min_gpu_ram_gb * _MB_PER_GB)),
    ("min_disk_gb", lambda o, c: _at_least(o.disk_gb, c.min_disk_gb)),
    ("min_cuda", lambda o, c: _at_least(o.cuda_max, c.min_cuda)),
    ("min_reliability", lambda o, c: _at_least(o.reliability, c.min_reliability)),
    ("direct_ports", lambda o, c: o.direct_ports >= c.direct_ports),
    ("verified", lambda o, c: o.verified or not c.verified or "verified" in c.query),
    ("bulk_transfer", lambda o, c: not c.bulk_transfer or (o.verified and o.direct_ports >= 1)),
    ("exclude_machines", lambda o, c: o.machine_id not in c.exclude_machines),
    ("volumes", lambda o, c: c.only_machine is None or o.machine_id == c.only_machine),
    ("price", lambda o, c: price_of(o, c) is not None),
    ("price_cap", within_cap),
]


def failed_constraints(offer: Offer, wanted: Constraints) -> list[str]:
    """The names of the constraints that the offer does not meet."""
    return [name for name, holds in _CHECKS if not holds(offer, wanted)]


def excluded_by(offers: Iterable[Offer], wanted: Constraints) -> dict[str, int]:
    """How many offers each constraint refuses; an offer that fails two counts for both."""
    counts: dict[str, int] = {}
    for offer in offers:
        for name in failed_constraints(offer, wanted):
            counts[name] = counts.get(name, 0) + 1
    return counts


def least_price(offers: Iterable[Offer], wanted: Constraints) -> float | None:
    """Dollars an hour of the cheapest offer that fails nothing but the cap; None when there is none."""
    prices = [lowest_price(offer, wanted) for offer in offers if failed_constraints(offer, wanted) == ["price_cap"]]
    known = [price for price in prices if price is not None]
    return min(known) if known else None


def lowest_price(offer: Offer, wanted: Constraints) -> float | None:
    """The least an hour could cost: for an interruptible box the bid without any margin."""
    storage = offer.storage_per_hour(wanted.min_disk_gb)
    compute = offer.min_bid if wanted.market == INTERRUPTIBLE else offer.compute_per_hour
    return None if storage is None or compute is None else storage + compute


def nothing_found(offers: Sequence[Offer], wanted: Constraints) -> TenantFailure:
    """Says which constraint excludes how many, and the lowest cap at which something would be found."""
    kind = f"{wanted.num_gpus} x {wanted.gpu_name or 'any GPU'}, {wanted.market}"
    if not offers:
        return TenantFailure(
            "no_offer",
            f"the market has no offer at all of {kind}",
            safe="nothing was rented",
            fix="check the spelling of gpu_name, or ask for another GPU or number of them",
        )
    counts = excluded_by(offers, wanted)
    reasons = ", ".join(f"{_words(name, wanted)} excludes {count}" for name, count in _by_count(counts))
    what = f"none of {len(offers)} offers of {kind} fits: {reasons or 'the raw query excludes all of them'}"
    least = least_price(offers, wanted)
    if least is not None and wanted.price_cap is not None:
        fix = f"the cheapest offer that fits otherwise costs ${least:.4f} an hour: raise price_cap to at least that"
    else:
        fix = "lift the constraint that excludes most"
    return TenantFailure("no_offer", what, safe="nothing was rented", fix=fix)


def _words(name: str, wanted: Constraints) -> str:
    if name == "price":
        return "a price the host does not state"
    if name == "bulk_transfer":
        return "bulk_transfer (verified, with a direct port)"
    if name == "volumes":
        return f"volumes (they lie on machine {wanted.only_machine})"
    value = getattr(wanted, name)
    return f"{name} ({len(value)} machines)" if name == "exclude_machines" else f"{name} {value}"


def _by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _same_gpu(left: str, right: str) -> bool:
    return left.replace("_", " ").casefold() == right.replace("_", " ").casefold()


def _at_least(value: float | None, least: float) -> bool:
    return not least or (value is not None and value >= least)


def _round_up(price: float) -> float:
    return math.ceil(price * 10000 - 1e-6) / 10000


def _round_down(price: float) -> float:
    return math.floor(price * 10000 + 1e-6) / 10000


def _whole(value: Any) -> int | None:
    found = number(value)
    return None if found is None else int(found)


def offer_ids(listed: Iterable[Any]) -> list[int]:
    """The ids in a list of ids and rows, in order, each once. TenantFailure for anything else."""
    found: list[int] = []
    for item in listed:
        value = str(item.get("id") if isinstance(item, Mapping) else item)
        if not re.match(r"[0-9]{1,18}\Z", value):
            raise TenantFailure("config", f"{value[:60]!r} in offers is neither an offer's id nor an offer")
        if int(value) not in found:
            found.append(int(value))
    return found


def reread(client: VastClient, listed: Sequence[Any], wanted: Constraints) -> list[Offer]:
    """The listed offers as the market has them now, in the given order; those that are gone are left out."""
    ids = offer_ids(listed)
    if not ids:
        return []
    rows = {int(row["id"]): row for row in client.search_offers(ids_body(ids, wanted))}
    return [to_offer(rows[offer_id]) for offer_id in ids if offer_id in rows]
