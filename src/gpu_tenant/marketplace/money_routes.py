# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The market's REST for what was charged, and what was paid."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from . import billing
from .calls import Call, Route
from .money import Deposit, Money
from .pages import money_page
from .requests import json_parameter, window


class MoneyRoutes:
    def __init__(self, money: Money) -> None:
        self._money = money

    def routes(self) -> list[Route]:
        v0 = "/api/v0"
        return [
            Route("GET", f"{v0}/charges", self.charges, interval_s=1.0, call="money"),
            Route("GET", "/api/v1/invoices", self.invoices, interval_s=3.0, call="money"),
            Route("GET", f"{v0}/users/me/invoices", self.old_invoices, interval_s=3.0, call="money"),
        ]

    def charges(self, call: Call) -> dict[str, Any]:
        filters = json_parameter(call.query, "select_filters", {})
        kinds = filters.get("type", {}).get("in") or ["instance", "volume"]
        since, until = window(filters.get("day", {}))
        lines = self._money.charges(since, until) if "instance" in kinds else []
        stored = self._money.volume_charges(since, until) if "volume" in kinds else []
        rows = [*(charge_row("instance", line) for line in lines), *(charge_row("volume", line) for line in stored)]
        return money_page(rows, call.query)

    def invoices(self, call: Call) -> dict[str, Any]:
        """What was paid ahead for instances. The account was given its credit; nothing else was ever paid."""
        filters = json_parameter(call.query, "select_filters", {})
        since, until = window(filters.get("when", {}))
        services = filters.get("service", {}).get("in") or [PREPAID]
        paid = self._money.deposits(since, until) if PREPAID in services else []
        return money_page([_deposit_row(one) for one in paid], call.query)

    def old_invoices(self, call: Call) -> dict[str, Any]:
        since, until = window({"gte": call.query.get("sdate"), "lte": call.query.get("edate")})
        rows = [row for line in self._money.charges(since, until) for row in old_invoice_rows("instance", line)]
        rows += [row for line in self._money.volume_charges(since, until) for row in old_invoice_rows("volume", line)]
        spent = billing.total(self._money.charges()) + billing.total(self._money.volume_charges())
        return {"invoices": rows, "current": {"charges": spent, "service_fee": 0.0, "total": spent, "credit": 0.0}}


PREPAID = "instance_prepay"


def charge_row(what: str, line: billing.Charge) -> dict[str, Any]:
    """A line as ``charges`` shows it; ``what`` is instance or volume."""
    return {
        "start": line.start,
        "end": line.end,
        "type": what,
        "source": f"{what}-{line.instance_id}",
        "description": f"{what.capitalize()} {line.instance_id} charges" + (f" ({line.label})" if line.label else ""),
        "amount": line.amount,
        "metadata": {f"{what}_id": line.instance_id, "label": line.label},
        "items": [_item_row(item) for item in items_of(what, line)],
    }


def old_invoice_rows(what: str, line: billing.Charge) -> list[dict[str, Any]]:
    """A line as the older list of invoices shows it."""
    return [
        {
            "type": "charge",
            "amount": item.amount,
            "timestamp": item.end,
            "description": f"{what.capitalize()} {line.instance_id} {item.kind} charge",
            "quantity": item.quantity,
            "rate": item.rate,
            f"{what}_id": line.instance_id,
        }
        for item in items_of(what, line)
    ]


def items_of(what: str, line: billing.Charge) -> Iterable[billing.Item]:
    """A volume has a disk and nothing else that could be charged."""
    return line.items if what == "instance" else [item for item in line.items if item.kind == "disk"]


def _item_row(item: billing.Item) -> dict[str, Any]:
    return {
        "start": item.start,
        "end": item.end,
        "type": item.kind,
        "source": "",
        "description": describe_item(item),
        "amount": item.amount,
        "metadata": {"quantity": item.quantity, "rate": item.rate, "metered": item.metered},
        "items": [],
    }


def describe_item(item: billing.Item) -> str:
    if not item.metered:
        return "bandwidth, not metered by this marketplace"
    if item.kind in billing.BANDWIDTH:
        return f"{item.quantity:.4f} GB at ${item.rate:.4f}"
    if item.kind == "deposit":
        return "kept of a deposit that was given back early"
    return f"{item.quantity:.4f} hours at ${item.rate:.6f}"


def _deposit_row(deposit: Deposit) -> dict[str, Any]:
    return {
        "start": deposit.at,
        "end": deposit.at,
        "type": "reserved",
        "source": PREPAID,
        "description": f"Deposit for instance {deposit.instance_id}",
        "amount": deposit.amount,
        "amount_cents": round(deposit.amount * 100),
        "metadata": {"invoice_id": deposit.number, "instance_id": deposit.instance_id},
        "items": [],
    }
