# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Shapes of what the market answers, other than offers and instances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import billing
from .instances import Key
from .refusals import MarketError


@dataclass(frozen=True)
class Reply:
    """``body`` is JSON data, text for a plain-text answer, or bytes that only claim to be JSON.

    :param delay_s: seconds before it is sent.
    :param cut: the connection ends, and nothing is sent.
    """

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut: bool = False


def refusal_body(refusal: MarketError) -> dict[str, Any]:
    return {"success": False, "error": refusal.code, "msg": refusal.message, **refusal.extra}


def refusal_reply(refusal: MarketError) -> Reply:
    return Reply(refusal.status, refusal_body(refusal))


def key_row(key: Key) -> dict[str, Any]:
    row = {"id": key.id, "user_id": 100001, "key": key.public_key, "public_key": key.public_key}
    return {**row, "created_at": key.created_at, "deleted_at": None}


def charge_row(line: billing.Charge) -> dict[str, Any]:
    source = f"instance-{line.instance_id}"
    return {
        "start": line.start,
        "end": line.end,
        "type": "instance",
        "source": source,
        "description": f"Instance {line.instance_id} charges" + (f" ({line.label})" if line.label else ""),
        "amount": line.amount,
        "metadata": {"instance_id": line.instance_id, "label": line.label},
        "items": [
            {
                "start": item.start,
                "end": item.end,
                "type": item.kind,
                "source": "",
                "description": describe_item(item),
                "amount": item.amount,
                "metadata": {"quantity": item.quantity, "rate": item.rate, "metered": item.metered},
                "items": [],
            }
            for item in line.items
        ],
    }


def old_invoice_rows(what: str, line: billing.Charge) -> list[dict[str, Any]]:
    """A line as the older list of invoices shows it; ``what`` is Instance or Volume."""
    return [
        {
            "type": "charge",
            "amount": item.amount,
            "timestamp": item.end,
            "description": f"{what} {line.instance_id} {item.kind} charge",
            "quantity": item.quantity,
            "rate": item.rate,
            f"{what.lower()}_id": line.instance_id,
        }
        for item in line.items
    ]


def describe_item(item: billing.Item) -> str:
    if not item.metered:
        return "bandwidth, not metered by this marketplace"
    if item.kind in billing.BANDWIDTH:
        return f"{item.quantity:.4f} GB at ${item.rate:.4f}"
    return f"{item.quantity:.4f} hours at ${item.rate:.4f}"
