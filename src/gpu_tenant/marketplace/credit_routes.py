# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The endpoint by which a rehearsal pays in."""

from __future__ import annotations

from typing import Any

from .calls import Call, Route
from .requests import invalid, number_in
from .solvency import Solvency


class CreditRoutes:
    def __init__(self, solvency: Solvency) -> None:
        self._solvency = solvency

    def routes(self) -> list[Route]:
        return [Route("POST", "/control/credit", self.pay_in)]

    def pay_in(self, call: Call) -> dict[str, Any]:
        amount = number_in(call.body, "amount", 0.0)
        if not 0 < amount < float("inf"):
            raise invalid("amount is dollars above 0")
        return {"success": True, "credit": self._solvency.pay_in(amount)}
