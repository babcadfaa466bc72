# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The market's REST for instances that are paid ahead."""

from __future__ import annotations

from typing import Any

from .calls import Call, Route
from .requests import invalid, number_in
from .reservations import Reservations


class ReservationRoutes:
    def __init__(self, reservations: Reservations) -> None:
        self._reservations = reservations

    def routes(self) -> list[Route]:
        path = "/api/v0/instances"
        return [
            Route("PUT", f"{path}/prepay/{{id:int}}", self.prepay, interval_s=2.0, call="money"),
            Route("GET", f"{path}/balance/{{id:int}}", self.deposit, interval_s=3.0, call="money"),
        ]

    def prepay(self, call: Call) -> dict[str, Any]:
        amount = number_in(call.body, "amount", 0.0)
        if not 0 < amount < float("inf"):
            raise invalid("amount is dollars above 0")
        months, discount = self._reservations.prepay(int(call.parameters["id"]), amount)
        return {"success": True, "timescale": months, "discount_rate": discount}

    def deposit(self, call: Call) -> dict[str, Any]:
        return {"success": True, **self._reservations.deposit(int(call.parameters["id"]))}
