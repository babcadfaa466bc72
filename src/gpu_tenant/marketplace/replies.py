# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Shapes of what the market answers, other than offers and instances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .instances import Key
from .refusals import MarketError


@dataclass(frozen=True)
class Reply:
    """``body`` is JSON data, text for a plain-text answer, or bytes that only claim to be JSON.

    :param delay_s: seconds before it is sent.
    :param cut: the connection ends, and nothing is sent.
    :param rented: the instances that it says were made, where its body does not say it in vast.ai's words.
    """

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut: bool = False
    rented: tuple[int, ...] = ()


def refusal_body(refusal: MarketError) -> dict[str, Any]:
    return {"success": False, "error": refusal.code, "msg": refusal.message, **refusal.extra}


def refusal_reply(refusal: MarketError) -> Reply:
    return Reply(refusal.status, refusal_body(refusal))


def key_row(key: Key) -> dict[str, Any]:
    row = {"id": key.id, "user_id": 100001, "key": key.public_key, "public_key": key.public_key}
    return {**row, "created_at": key.created_at, "deleted_at": None}
