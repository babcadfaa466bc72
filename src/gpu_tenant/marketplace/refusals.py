# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the market says no with."""

from __future__ import annotations

from typing import Any


class MarketError(Exception):
    """A request that the market refuses."""

    def __init__(self, status: int, code: str, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.extra = extra


def no_such_offer(offer_id: int) -> MarketError:
    return MarketError(
        404,
        "invalid_args",
        f"error 404/3603: no_such_ask Instance type by id {offer_id} is not available.",
        ask_id=offer_id,
    )
