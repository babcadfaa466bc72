# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A tenant that is killed as its create leaves, while what it sent is still on its way to the market."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from faulty_market import FaultyMarket
from wire_market import EPOCH


class Killed(BaseException):
    """Nobody catches it, as nobody catches a SIGKILL."""


class LateCreate:
    """Kills the sender of the next create; the market gets that create so many seconds (of its clock) later.

    :param path: a pattern that the path of a create matches.
    :param late_s: None for a create that never arrives.
    """

    def __init__(self, market: FaultyMarket, path: str, late_s: float | None) -> None:
        self._market, self._path, self._late_s = market, path, late_s
        self._deliver: Callable[[], Any] | None = None
        self._due, self.was_sent = 0.0, False
        self._open, self._sleep = market.open, market.sleep
        market.open, market.sleep = self.open, self.sleep  # type: ignore[method-assign]

    def open(self, request: Any, timeout: float) -> Any:
        if self.was_sent or request.get_method() == "GET" or not re.search(self._path, request.full_url):
            return self._open(request, timeout)
        self.was_sent = True
        if self._late_s is not None:
            self._due = self._market.clock() + self._late_s
            self._deliver = lambda: self._open(request, timeout)
        raise Killed

    def sleep(self, seconds: float) -> None:
        self._sleep(seconds)
        if self._deliver is not None and self._market.clock() >= self._due:
            deliver, self._deliver = self._deliver, None
            deliver()


def kill_in_the_create(
    market: FaultyMarket, path: str, rent: Callable[[], object], late_s: float | None = None
) -> LateCreate:
    """One call of ``rent`` that does not live to hear what became of its create."""
    late = LateCreate(market, path, late_s)
    with pytest.raises(Killed):
        rent()
    return late


def keep_time(market: FaultyMarket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records tell the market's time, so that what they say of a moment fits what was waited for."""

    def now() -> str:
        return records.utc_text(datetime.datetime.fromtimestamp(EPOCH + market.clock(), datetime.UTC))

    monkeypatch.setattr(records, "utc_now", now)
