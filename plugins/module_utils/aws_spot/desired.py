# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""From what a Spot Instance shall be to what is done: the whole of ``aws_spot_instance`` but its options.

``changed`` and ``diff`` come from one comparison of the box before and after; in check mode "after" is predicted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, NoReturn

from .. import rental_states
from ..creation import check_order
from ..rental_account import Found
from ..rental_states import ABSENT, PRESENT, STARTED, STOPPED, absent, converged, located
from .actions import SpotAccount, no_rest
from .rental import SpotOrder, SpotRental, order_problem
from .transformations import SpotBox, spot_result

STATES = (PRESENT, STARTED, STOPPED, ABSENT)


@dataclass(frozen=True)
class Desire:
    """:param provider_id: only for absent: this one of the boxes that carry the name; empty for all."""

    state: str
    order: SpotOrder
    provider_id: str = ""


@dataclass
class Result(rental_states.Result[SpotBox]):
    """What came of it. ``left`` is what bills on although its instance is gone; None where nobody asked."""

    left: list[dict[str, Any]] | None = None

    def show(self, box: SpotBox, provider_now: float | None) -> dict[str, Any]:
        return spot_result(box, provider_now)

    def as_result(self, provider_now: float | None) -> dict[str, Any]:
        result = super().as_result(provider_now)
        return result if self.left is None else dict(result, left=self.left)


def converge(account: SpotAccount, desire: Desire, check_mode: bool = False) -> dict[str, Any]:
    """Bring the box to the desired state; what ``aws_spot_instance`` returns. TenantFailure names the box."""
    steps: dict[str, Callable[..., Result]] = {
        PRESENT: _present,
        STARTED: _present,
        STOPPED: _stopped,
        ABSENT: _absent,
    }
    return converged(account, desire, steps, check_mode)


def _present(account: SpotAccount, desire: Desire, check_mode: bool) -> Result:
    found = located(account, desire)
    box = found.current
    if box is None:
        return _rented(account, desire, found, check_mode)
    result = Result(before=box, found=found, after=box)
    if check_mode:
        return result
    result.after = SpotRental(account, desire.order).running(box, is_new=False)
    return result


def _rented(account: SpotAccount, desire: Desire, found: Found[SpotBox], check_mode: bool) -> Result:
    order = desire.order
    check_order(order.name, order_problem(order))
    rental = SpotRental(account, order)
    result = Result(before=None, found=found)
    if check_mode:
        rental.predict(result)
        result.would = _would(rental)
    else:
        rental.rent_into(result)
    return result


def _would(rental: SpotRental) -> dict[str, Any]:
    """What renting would mean now, in money."""
    rental.checked_order()
    order, client = rental.order, rental.account.client
    prices = {kind: client.spot_price(kind) for kind in order.instance_types}
    affordable = [price is not None and price <= order.max_price for price in prices.values()]
    problem = "" if any(affordable) else "no instance type costs as little as price_cap allows now"
    told = {"spot_prices": prices, "max_price": order.max_price, "price_cap": order.price_cap, "region": client.region}
    return {**told, "problem": problem}


def _stopped(_account: SpotAccount, desire: Desire, _check_mode: bool) -> NoReturn:
    """Refused before anything is asked."""
    raise no_rest(desire.order.name)


def _absent(account: SpotAccount, desire: Desire, check_mode: bool) -> Result:
    """Terminate, through the gate; then say what bills on."""
    result = absent(Result, account, desire, check_mode)
    result.left = account.left(desire.order.project, desire.order.name)
    return result
