# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Paying ahead: a box on demand becomes a reserved one, once, within a cap, and what giving it back would cost is said.

The market has no price list for it: it answers a payment with the months and the discount that it made of it. So the
amount is computed from the discounts that the help of its own client names, and what came of it is told.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Callable, Sequence

from ..creation import SETTLE_S
from ..failures import TenantFailure
from ..rental_waiters import DeadlinePassed, wait_until
from ..rented_box import HOURS_PER_MONTH, Box, number
from ..rest_client import AmbiguousAnswer
from .api import VastClient, VastError
from .offers import Offer, Price

# By months: the discount of a host whose largest is 0.4, and no host's is told before (help of the client's prepay).
_DISCOUNTS = ((0.0, 0.0), (1.0, 0.2), (3.0, 0.3), (6.0, 0.4))
_USUAL_MOST = 0.4
MOST_MONTHS = 24.0


@dataclass(frozen=True)
class Reserve:
    """That a box shall be paid ahead.

    :param months: for how long, in the market's months of 720 hours.
    :param cap: most dollars that may be paid for it.
    """

    months: float
    cap: float

    @classmethod
    def from_options(cls, months: float | None, cap: float | None) -> Reserve:
        """TenantFailure (config) for what cannot be paid."""
        if months is None or cap is None:
            raise _config("market: reserved needs reserve_months and reserve_cap", "say for how long, and for how much")
        if not 0 < months <= MOST_MONTHS:
            raise _config(
                f"reserve_months is above 0 and at most {MOST_MONTHS:.0f}, not {months}", "1, 3 and 6 are sold"
            )
        if not 0 < cap < math.inf:
            raise _config(f"reserve_cap is dollars above 0, not {cap}", "it is the consent to pay that much at once")
        return cls(months, cap)


@dataclass(frozen=True)
class Deposit:
    """What is left of a box's deposits.

    :param refundable: dollars that come back when the box is destroyed now.
    :param months: how long it lasts while the box runs; 0 for a box that is not reserved.
    """

    refundable: float
    months: float

    @property
    def is_there(self) -> bool:
        return self.months > 0 or self.refundable > 0

    def as_result(self) -> dict[str, Any]:
        return {"refundable": round(self.refundable, 4), "months_left": round(self.months, 4)}


def discount_for(months: float, most: float) -> float:
    """The discount that so many months ought to bring with a host whose largest is ``most``."""
    for (fewer, less), (more, worth) in itertools.pairwise(_DISCOUNTS):
        if months <= more:
            return most / _USUAL_MOST * (less + (worth - less) * (months - fewer) / (more - fewer))
    return most


def deposit_of(client: VastClient, box: Box) -> Deposit:
    """VastError when the provider does not say."""
    told = client.deposit(box.provider_id)
    refundable, months = number(told.get("refundable_deposit")), number(told.get("discount_months"))
    if refundable is None or months is None:
        raise VastError(f"the provider does not say what is deposited for instance {box.provider_id}", 200, "malformed")
    return Deposit(refundable, months)


def amount_for(box: Box, reserve: Reserve) -> float:
    """Dollars to pay, in whole cents. TenantFailure, before anything is paid, for what nobody consented to."""
    if box.is_bid:
        raise _refused(
            box, "config", "it bids, and only a box on demand can be reserved", "rent one with market: reserved"
        )
    if box.dph_total is None or box.storage_per_hour is None:
        raise _refused(box, "provider", "the provider does not say what an hour of it costs", "look again later")
    hourly = box.dph_total - box.storage_per_hour
    amount = _amount(hourly, reserve, _USUAL_MOST if box.most_discount is None else box.most_discount)
    if amount > reserve.cap:
        what = f"{reserve.months:g} months of it are ${amount:.2f}, above the reserve_cap of ${reserve.cap:.2f}"
        raise _refused(box, "budget", what, f"set reserve_cap to {amount:.2f}, or fewer reserve_months")
    return amount


def affordable(fitting: Sequence[tuple[Offer, Price]], reserve: Reserve) -> tuple[list[tuple[Offer, Price]], list[str]]:
    """The offers that can be reserved within the cap and for so long, and why the others cannot."""
    kept, refused = [], []
    for offer, price in fitting:
        amount = _amount(price.total - price.storage, reserve, _USUAL_MOST)
        left = math.inf if offer.available_s is None else offer.available_s / 3600.0 / HOURS_PER_MONTH
        if amount > reserve.cap:
            refused.append(
                f"offer {offer.offer_id}: {reserve.months:g} months are about ${amount:.2f}, above the reserve_cap of "
                f"${reserve.cap:.2f}"
            )
        elif left < reserve.months:
            refused.append(
                f"offer {offer.offer_id}: it ends in {left:.2f} months, before the {reserve.months:g} to pay"
            )
        else:
            kept.append((offer, price))
    return kept, refused


def check_rental_lasts(box: Box, reserve: Reserve, now: float | None) -> None:
    """TenantFailure when the rental ends before the deposit does: nobody gives back what is not used then."""
    left = _months_left(box, now)
    if left is not None and left < reserve.months:
        what = f"its rental ends in {left:.2f} months, before the {reserve.months:g} that would be paid"
        raise _refused(
            box, "config", what, f"reserve at most {math.floor(left * 100) / 100:g} months, or another machine"
        )


def pay(client: VastClient, box: Box, amount: float, refused: Callable[[], None]) -> dict[str, float]:
    """Pay once; what the market made of it. A lost answer is looked up, and never answered by a second payment.

    :param refused: called when the market said no, so that certainly nothing was paid.
    """
    try:
        answer = client.prepay(box.provider_id, amount)
    except AmbiguousAnswer as lost:
        return _looked_up(client, box, lost)
    except VastError as error:
        refused()
        if error.status == 411:
            raise _refused(box, "budget", f"the account has no ${amount:.2f} left", "pay in, then repeat") from None
        raise
    return {"months": number(answer.get("timescale")) or 0.0, "discount": number(answer.get("discount_rate")) or 0.0}


def _looked_up(client: VastClient, box: Box, lost: AmbiguousAnswer) -> dict[str, float]:
    """What a payment whose answer was lost has become, looked for as long as a create whose answer was lost is."""

    def shown() -> Deposit | None:
        deposit = deposit_of(client, box)
        return deposit if deposit.is_there else None

    try:
        waits = client.back_off(0.5, 5.0)
        deposit = wait_until(shown, client.clock() + SETTLE_S, waits, client.clock, client.sleep)
        row = client.get_instance(box.provider_id) or {}
        return {"months": deposit.months, "discount": number(row.get("credit_discount")) or 0.0}
    except DeadlinePassed:
        seen = "no deposit shows"
    except VastError as error:
        seen = f"whether a deposit shows is not known ({error.what})"
    raise TenantFailure(
        "provider",
        f"the answer to the payment for instance {box.provider_id} was lost ({lost.what}), and {seen}",
        box=box.stamp.box if box.stamp else "",
        safe="it was sent once and is never sent again; the box runs on demand",
        fix="repeat later: a deposit that shows by then is taken as it is. If none ever shows, pay in the provider's "
        "console",
    )


def loss_of(client: VastClient, box: Box) -> str:
    """What giving a reserved box back means in money; empty for one that is not reserved."""
    if not box.credit_balance:
        return ""
    deposit = deposit_of(client, box)
    of = f" of ${box.credit_balance:.2f}"
    return (
        f"instance {box.provider_id} is paid ahead for {deposit.months:.2f} months: when it is destroyed, "
        f"${deposit.refundable:.2f}{of} come back"
    )


def _amount(hourly: float, reserve: Reserve, most_discount: float) -> float:
    exact = reserve.months * HOURS_PER_MONTH * hourly * (1 - discount_for(reserve.months, most_discount))
    return math.ceil(round(exact * 100, 6)) / 100


def _months_left(box: Box, now: float | None) -> float | None:
    return None if box.end_date is None or now is None else (box.end_date - now) / 3600.0 / HOURS_PER_MONTH


def _config(what: str, fix: str) -> TenantFailure:
    return TenantFailure("config", what, safe="nothing was rented and nothing was paid", fix=fix)


def _refused(box: Box, kind: str, why: str, fix: str) -> TenantFailure:
    return TenantFailure(
        kind,
        f"instance {box.provider_id} is not reserved: {why}",
        box=box.stamp.box if box.stamp else "",
        safe="nothing was paid; the box runs on demand",
        fix=fix,
    )
