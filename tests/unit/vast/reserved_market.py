# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A box on demand, of a market on a virtual clock, whose tenant pays ahead."""

from __future__ import annotations

import io
import urllib.error
import urllib.parse
from dataclasses import replace
from email.message import Message
from pathlib import Path
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.vast.reservation import Reserve
from faulty_market import ORDER, FaultyMarket
from wire_market import KEY, Answer

HOUR_S, DAY_S, MONTH_H = 3600.0, 86400.0, 720.0
ON_DEMAND = replace(ORDER.wanted, market="on-demand")


class ReservedMarket(FaultyMarket):
    def __init__(self, folder: Path, *faults: dict[str, Any], **settings: Any) -> None:
        super().__init__(folder, *faults, **{"credit": 100_000.0, **settings})
        self._losing = ""

    def lose_next_payment(self, how: str) -> None:
        """``lost_answer``: it was made. ``lost_request`` and ``server_error``: it was not, and nobody says so."""
        self._losing = how

    def open(self, request: Any, timeout: float) -> Answer:
        how = self._losing if "/prepay/" in request.full_url else ""
        if not how:
            return super().open(request, timeout)
        self._losing = ""
        if how == "lost_answer":
            super().open(request, timeout)
        else:
            self.sent.append((request.get_method(), urllib.parse.urlsplit(request.full_url).path))
        if how == "server_error":
            raise urllib.error.HTTPError(request.full_url, 502, "Bad Gateway", Message(), io.BytesIO(b"bad gateway"))
        raise TimeoutError("timed out")

    def rented(self, market: str = "on-demand") -> int:
        wanted = replace(ORDER.wanted, market=market)
        return int(self.converge("started", wanted=wanted)["instance"]["provider_id"])

    def reserved(self, months: float = 1.0, cap: float = 5000.0, check: bool = False) -> dict[str, Any]:
        return self.converge("started", wanted=ON_DEMAND, reserve=Reserve(months, cap), check=check)

    def row(self, instance: int) -> dict[str, Any]:
        return dict(self.rows()[instance])

    def prepay(self, instance: int, amount: float) -> dict[str, Any]:
        reply = self.request("PUT", f"/api/v0/instances/prepay/{instance}/", {"amount": amount})
        assert reply.status == 200, reply.body
        return dict(reply.body)

    def deposit(self, instance: int) -> dict[str, Any]:
        return dict(self.request("GET", f"/api/v0/instances/balance/{instance}/", {}, "owner=me").body)

    def charged(self, instance: int) -> list[dict[str, Any]]:
        rows = self.request("GET", "/api/v0/charges/", {}, "", KEY).body["results"]
        (line,) = [row for row in rows if row["metadata"]["instance_id"] == instance]
        return [dict(item) for item in line["items"]]
