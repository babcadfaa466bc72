# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What an hour of useful work on an offer is expected to cost, and why. Pure: no network, no disk, no clock.

The cheapest hour is not the cheapest result. A box also bills while data moves and while lost work is done again,
traffic bills by the gigabyte both ways, and a box that never comes up bills until it is given back. None of these
figures bill anything themselves; they only decide which offer is tried first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable, Mapping

from ..failures import TenantFailure
from .offers import INTERRUPTIBLE, Constraints, Offer, Price, failed_constraints, price_of
from .reputation import NO_EXPERIENCE, Reputation

# Where a host does not say: the dearest bandwidth seen on the market is taken, and a slow line, so that silence
# never looks cheap ($ per GB, Mbit/s, share of time up).
UNKNOWN_BANDWIDTH_PRICE = 0.05
UNKNOWN_BANDWIDTH_MBPS = 100.0
UNKNOWN_RELIABILITY = 0.9
# A host that claims to be up for none of the time would cost infinitely much, and infinities cannot be compared.
LEAST_RELIABILITY = 0.01

_MBIT_PER_GB = 8000.0
# Odds of 1 would mean that boxes are rented for ever.
_MOST_ODDS = 0.99


@dataclass(frozen=True)
class Assumptions:
    """What the market does not publish. Every default is documented, with its source, in docs/vast.md.

    :param hours_to_outbid: hours that an interruptible box runs before a higher bid wins, when it bids the least that
        runs. Our estimate, a quarter of a day: vast.ai only says "at any time".
    :param margin_that_doubles: bidding this share above the least that runs doubles those hours. Our estimate.
    :param hours_lost_per_interruption: half a checkpoint interval plus boot, deploy and resume (our runs: 6 to 15
        minutes).
    :param hours_to_recover: hours until a failed host is given up and replaced. With the market's reliability r, its
        share of time up, it gives the rate of failures, (1 - r) / (r * this).
    :param boot_failure_odds: share of rented boxes that never come up or fail the probe, on verified hosts. Our
        estimate: no figure is published.
    :param boot_failure_odds_unverified: the same on hosts that the market has not verified: the 58 % that the run-farm
        project reports of the cheap tier.
    :param hours_per_failed_boot: what one such box bills before it is given back: a boot of 1 to 5 minutes
        (vast.ai's documentation) and a probe. At $0.30 an hour it comes to the $0.02 to $0.05 per host that run-farm
        reports.
    """

    hours_to_outbid: float = 6.0
    margin_that_doubles: float = 0.1
    hours_lost_per_interruption: float = 0.25
    hours_to_recover: float = 1.0
    boot_failure_odds: float = 0.2
    boot_failure_odds_unverified: float = 0.58
    hours_per_failed_boot: float = 0.1

    @classmethod
    def from_options(cls, given: Mapping[str, Any] | None) -> Assumptions:
        """From a module's option ``assumptions``, of which every part may be left out. TenantFailure for nonsense."""
        stated = {name: float(value) for name, value in (given or {}).items() if value is not None}
        for name, value in stated.items():
            most = _MOST_ODDS if "odds" in name else None
            _check_range(f"assumptions.{name}", value, most, zero=name not in _DIVISORS)
        return cls(**stated)


DEFAULTS = Assumptions()
_DIVISORS = ("hours_to_outbid", "margin_that_doubles", "hours_to_recover")


@dataclass(frozen=True)
class Work:
    """What the box is for: hours of training, and GB that cross the wire each way."""

    hours: float = 4.0
    download_gb: float = 5.0
    upload_gb: float = 1.0
    assumptions: Assumptions = DEFAULTS

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Work:
        """From a module's options. TenantFailure for hours or gigabytes that cannot be."""
        _check_range("hours_expected", options["hours_expected"])
        for name in ("download_gb", "upload_gb"):
            _check_range(name, options[name], zero=True)
        assumptions = Assumptions.from_options(options.get("assumptions"))
        return cls(options["hours_expected"], options["download_gb"], options["upload_gb"], assumptions)


DEFAULT_WORK = Work()


@dataclass(frozen=True)
class Cost:
    """The parts of an expected cost, in dollars per useful hour, and the odds that they come of.

    :param bandwidth_total: dollars, once.
    :param transfer_hours: hours for which the box bills while data moves.
    :param outbids_per_hour: expected; 0 on demand.
    :param host_failures_per_hour: expected.
    :param boot_failure: odds that a box rented here never comes up.
    :param assumed: what the host does not state, in words.
    :param experience: what our own boxes told, in words; empty while there were none.
    """

    compute: float
    disk: float
    bandwidth: float
    transfers: float
    interruptions: float
    failed_boots: float
    bandwidth_total: float
    transfer_hours: float
    outbids_per_hour: float
    host_failures_per_hour: float
    boot_failure: float
    assumed: tuple[str, ...] = ()
    experience: str = ""

    @property
    def interruptions_per_hour(self) -> float:
        return self.outbids_per_hour + self.host_failures_per_hour

    @property
    def per_useful_hour(self) -> float:
        return sum(self.parts().values())

    def parts(self) -> dict[str, float]:
        """What adds up to the cost of a useful hour."""
        names = ("compute", "disk", "bandwidth", "transfers", "interruptions", "failed_boots")
        return {name: getattr(self, name) for name in names}


def cost_of(offer: Offer, price: Price, work: Work, market: str, known: Reputation = NO_EXPERIENCE) -> Cost:
    """Expected dollars per useful hour: what the work bills in all, over the hours of work that it leaves behind."""
    assume = work.assumptions
    reliability, down_price, up_price, assumed = _stated(offer)
    bandwidth = work.download_gb * down_price + work.upload_gb * up_price
    transfer_hours = _hours(work.download_gb, offer.download_mbps) + _hours(work.upload_gb, offer.upload_mbps)
    host_failures = (1 - reliability) / (reliability * assume.hours_to_recover)
    outbids = 0.0
    if market == INTERRUPTIBLE:
        outbids = known.outbid_rate(offer.machine_id, 1 / hours_to_outbid(offer, price, assume))
    default_odds = assume.boot_failure_odds if offer.verified else assume.boot_failure_odds_unverified
    odds = known.boot_failure(offer.machine_id, default_odds)
    # Boxes are rented until one comes up, so there are odds / (1 - odds) failures before it.
    failed_hours = odds / (1 - odds) * assume.hours_per_failed_boot
    return Cost(
        compute=price.compute,
        disk=price.storage,
        bandwidth=bandwidth / work.hours,
        transfers=price.total * transfer_hours / work.hours,
        interruptions=price.total * (outbids + host_failures) * assume.hours_lost_per_interruption,
        failed_boots=price.total * failed_hours / work.hours,
        bandwidth_total=bandwidth,
        transfer_hours=transfer_hours,
        outbids_per_hour=outbids,
        host_failures_per_hour=host_failures,
        boot_failure=odds,
        assumed=assumed,
        experience=known.words(offer.machine_id),
    )


def _stated(offer: Offer) -> tuple[float, float, float, tuple[str, ...]]:
    """Reliability and the prices of a GB down and up; what the host does not state is assumed, and said."""
    assumed = []
    reliability = offer.reliability
    if reliability is None or not 0 <= reliability <= 1:
        reliability = UNKNOWN_RELIABILITY
        assumed.append(f"a host that is up {UNKNOWN_RELIABILITY:.0%} of the time")
    if None in (offer.download_per_gb, offer.upload_per_gb):
        assumed.append(f"bandwidth at ${UNKNOWN_BANDWIDTH_PRICE}/GB")
    if None in (offer.download_mbps, offer.upload_mbps):
        assumed.append(f"a line of {UNKNOWN_BANDWIDTH_MBPS:.0f} Mbit/s")
    down, up = _known(offer.download_per_gb), _known(offer.upload_per_gb)
    return max(reliability, LEAST_RELIABILITY), down, up, tuple(assumed)


def hours_to_outbid(offer: Offer, price: Price, assume: Assumptions = DEFAULTS) -> float:
    """Expected hours until a higher bid: more for a bid above the least that runs."""
    if not price.bid or not offer.min_bid:
        return assume.hours_to_outbid
    margin = max(0.0, price.bid / offer.min_bid - 1)
    return assume.hours_to_outbid * (1 + margin / assume.margin_that_doubles)


def ranked(
    offers: Iterable[Offer], wanted: Constraints, work: Work, known: Reputation = NO_EXPERIENCE
) -> list[tuple[Offer, Price, Cost]]:
    """The offers that meet every constraint, the cheapest useful hour first; ties go to the lower id."""
    fitting = []
    for offer in offers:
        price = price_of(offer, wanted)
        if price is not None and not failed_constraints(offer, wanted):
            fitting.append((offer, price, cost_of(offer, price, work, wanted.market, known)))
    return in_order(fitting)


def in_order(judged: Iterable[tuple[Offer, Price, Cost]]) -> list[tuple[Offer, Price, Cost]]:
    return sorted(judged, key=lambda found: (found[2].per_useful_hour, found[0].offer_id))


def why(offer: Offer, price: Price, cost: Cost, work: Work) -> str:
    """The cost in words, each part with its number and unit."""
    compute = f"${price.compute:.4f} {'bid' if price.bid is not None else 'compute'}"
    reliability = "unknown" if offer.reliability is None else f"{offer.reliability:.1%}"
    gigabytes = f"{work.download_gb:g} GB down and {work.upload_gb:g} GB up"
    parts = [
        f"${cost.per_useful_hour:.4f} per useful hour of {work.hours:g} h: "
        f"{compute} + ${price.storage:.4f} disk an hour",
        f"${cost.bandwidth_total:.3f} once for {gigabytes}",
        f"{cost.transfer_hours * 60:.0f} min of transfers",
        f"an interruption expected {_span(cost.interruptions_per_hour)} (${cost.interruptions:.4f} an hour)",
        f"{cost.boot_failure:.0%} of boots fail (${cost.failed_boots:.4f} an hour)",
        f"reliability {reliability}",
    ]
    if cost.assumed:
        parts.append("assumed " + " and ".join(cost.assumed))
    if cost.experience:
        parts.append(cost.experience)
    return ", ".join(parts)


def explained(offer: Offer, price: Price, cost: Cost, work: Work) -> dict[str, Any]:
    """The rank of an offer as the modules return it; dollars rounded to a ten-thousandth of a cent."""
    return {
        "cost_per_useful_hour": round(cost.per_useful_hour, 6),
        "cost_parts": {name: round(value, 6) for name, value in cost.parts().items()},
        "why": why(offer, price, cost, work),
    }


def _span(rate: float) -> str:
    if rate <= 0:
        return "never"
    hours = 1 / rate
    return f"every {hours:.0f} h" if hours >= 2 else f"every {hours * 60:.0f} min"


def _known(price: float | None) -> float:
    return UNKNOWN_BANDWIDTH_PRICE if price is None else price


def _hours(gigabytes: float, mbps: float | None) -> float:
    speed = UNKNOWN_BANDWIDTH_MBPS if mbps is None or mbps <= 0 else mbps
    return gigabytes * _MBIT_PER_GB / speed / 3600.0


def _check_range(name: str, value: float, most: float | None = None, zero: bool = False) -> None:
    """TenantFailure unless the value is above 0 (or 0, where that makes sense), finite and not above ``most``."""
    highest = float("inf") if most is None else most
    if (value > 0 or (zero and value == 0)) and value <= highest and value != float("inf"):
        return
    limits = f"{'at least' if zero else 'above'} 0" + ("" if most is None else f" and at most {most}")
    raise TenantFailure("config", f"{name} is {value}, it must be {limits}", safe="nothing was rented")
