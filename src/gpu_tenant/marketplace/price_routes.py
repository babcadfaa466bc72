# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The market's REST for the prices that hosts raise, and the endpoint by which a rehearsal raises one."""

from __future__ import annotations

from typing import Any

from .calls import Call, Route
from .price_rises import PriceRises
from .requests import instance_in, invalid, number_in


class PriceRoutes:
    def __init__(self, rises: PriceRises) -> None:
        self._rises = rises

    def routes(self) -> list[Route]:
        path = "/api/v0/instances"
        return [
            Route("GET", f"{path}/pending-price-increases", self.pending, call="money"),
            Route("PUT", f"{path}/accept-price-increase", lambda call: self._answer(call, True), call="money"),
            Route("PUT", f"{path}/reject-price-increase", lambda call: self._answer(call, False), call="money"),
            Route("POST", "/control/price_rise", self.ask),
        ]

    def pending(self, _call: Call) -> dict[str, Any]:
        rows = [self._rises.row(rise) for rise in self._rises.pending()]
        return {"success": True, "count": len(rows), "truncated": False, "pending_price_increases": rows}

    def ask(self, call: Call) -> dict[str, Any]:
        """A host raises its prices for an instance; ``ends_in_s`` is when the contract ends if nobody accepts."""
        given = {name: _price(call, name) for name in ("compute_per_hour", "storage_per_gb_month", "ends_in_s")}
        rise = self._rises.ask(
            instance_in(call.body), given["compute_per_hour"], given["storage_per_gb_month"], given["ends_in_s"]
        )
        return {"success": True, "pending_price_increase_id": rise.id}

    def _answer(self, call: Call, accepted: bool) -> dict[str, Any]:
        number = call.body.get("pending_price_increase_id")
        if len(call.body) != 1 or isinstance(number, bool) or not isinstance(number, int):
            raise invalid("the body is exactly {pending_price_increase_id: number}")
        rise = self._rises.answer(number, accepted)
        return {"success": True, "pending_price_increase_id": rise.id, "contract_id": rise.instance_id}


def _price(call: Call, name: str) -> float | None:
    if call.body.get(name) is None:
        return None
    value = number_in(call.body, name, 0.0)
    if value < 0:
        raise invalid(f"{name} is a number from 0 up")
    return value
