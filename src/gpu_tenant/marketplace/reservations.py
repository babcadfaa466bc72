# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Reserved instances: on-demand ones whose tenant paid ahead, for a lower price as long as the deposit lasts.

The market computes discount and months from all that is left of the deposits and what was paid in, at every payment
anew. Who gives a reserved instance back gets what remains of the deposit, less what the discount had saved.
Source: the market's page on reserved instances. That only compute is paid from a deposit, and how the discount grows
between the months that the market names, are choices made here.
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import replace
from typing import Any

from . import instances
from .billing import HOUR_S, MONTH_H, MOST_DISCOUNT, Segment
from .books import Books
from .instances import Instance
from .money import Money
from .refusals import MarketError

log = logging.getLogger(__name__)

# The part of the host's largest discount that so many months are worth (the CLI's help: 0.2 for one, 0.3 for three of
# a default of 0.4; the console sells six at most).
_WORTH = ((0.0, 0.0), (1.0, 0.5), (3.0, 0.75), (6.0, 1.0))


def discount_for(months: float) -> float:
    """The fraction that an hour gets cheaper when so many months are paid ahead."""
    for (fewer, less), (more, worth) in itertools.pairwise(_WORTH):
        if months <= more:
            return MOST_DISCOUNT * (less + (worth - less) * (months - fewer) / (more - fewer))
    return MOST_DISCOUNT


def months_for(amount: float, full_price: float) -> float:
    """For how many months an amount lasts, at the discount that it brings.

    :param full_price: dollars an hour without a discount.
    """
    fewest, most = 0.0, max(6.0, amount / (full_price * MONTH_H * (1 - MOST_DISCOUNT)))
    for _each in range(60):
        middle = (fewest + most) / 2
        if middle * MONTH_H * full_price * (1 - discount_for(middle)) < amount:
            fewest = middle
        else:
            most = middle
    return most


class Reservations:
    def __init__(self, books: Books, money: Money) -> None:
        self._books = books
        self._money = money

    def prepay(self, instance_id: int, amount: float) -> tuple[float, float]:
        """Put credit into an instance: for how many months it lasts, and the discount. MarketError (400, 411)."""
        with self._books.changing() as (_state, now):
            instance = self._books.instance(instance_id)
            if instance.is_bid:
                raise MarketError(400, "invalid_args", "Only an on-demand instance can be reserved.")
            if amount > self._money.credit():
                raise MarketError(411, "missing_billing", "Insufficient credit.")
            instance = _lapsed(instance, now)
            months = months_for(instances.credit_balance(instance, now) + amount, instance.base_price)
            discount = discount_for(months)
            self._books.put(instances.prepaid(instance, amount, discount, now))
            return months, discount

    def deposit(self, instance_id: int) -> dict[str, Any]:
        """What is left of an instance's deposits, as the API says it."""
        with self._books.reading() as (_state, now):
            instance = _lapsed(self._books.instance(instance_id), now)
            balance = instances.credit_balance(instance, now)
            rate = instance.base_price * (1 - instance.discount)
            return {
                "refundable_deposit": max(0.0, balance - instances.saved(instance, now)),
                "total_discount": instances.saved(instance, now),
                "discount_months": balance / (rate * MONTH_H),
            }

    def end_due(self) -> None:
        """Back to the full price, from the moment at which a deposit was used up."""
        with self._books.reading() as (state, now):
            reserved = [one for one in state.instances.values() if one.live and one.discount]
            due = [(one, _lapsed(one, now)) for one in reserved]
            for instance, lapsed in due:
                if lapsed is not instance:
                    log.info("instance %d: its deposit is used up", instance.id)
                    self._books.put(lapsed)
                    self._books.save()


def _lapsed(instance: Instance, now: float) -> Instance:
    """The instance as it is once what is due by now has happened: its deposit may have been used up in between."""
    if not instance.discount or instances.credit_balance(instance, now) > 0:
        return instance
    ended = replace(instance, discount=0.0)
    if not instance.compute or instance.compute[-1].end is not None:
        return ended
    last = instance.compute[-1]
    left = instances.credit_balance(instance, last.start)
    at = min(now, last.start + left / last.rate * HOUR_S)
    closed = replace(last, end=at)
    return replace(ended, compute=(*instance.compute[:-1], closed, Segment(at, None, instance.base_price)))
