# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``execute``: the few commands that a tenant may run on an instance without logging in."""

from __future__ import annotations

import shlex
from typing import Any

from .calls import Call, Route
from .market import Market
from .requests import invalid
from .results import Results

ALLOWED = ("ls", "rm", "du")
LONGEST = 512


class CommandRoutes:
    def __init__(self, market: Market, results: Results) -> None:
        self._market = market
        self._results = results

    def routes(self) -> list[Route]:
        path = "/api/v0/instances/command/{id:int}"
        return [Route("PUT", path, self.execute, interval_s=1.5, call="logs")]

    def execute(self, call: Call) -> dict[str, Any]:
        number = int(call.parameters["id"])
        printed = self._market.boxes.execute(number, words_of(call.body.get("command")))
        url = self._results.keep(printed, call.base_url)
        return {"success": True, "result_url": url, "writeable_path": "/workspace", "msg": "Command executed."}


def words_of(command: object) -> list[str]:
    """A command's words. MarketError (400 invalid_args) for one that is not allowed."""
    if not isinstance(command, str) or len(command) > LONGEST:
        raise invalid(f"command must be a text of at most {LONGEST} characters")
    try:
        words = shlex.split(command)
    except ValueError as reason:
        raise invalid(f"command cannot be read: {reason}") from reason
    if not words or words[0] not in ALLOWED:
        raise invalid(f"command must begin with one of {', '.join(ALLOWED)}")
    return words
