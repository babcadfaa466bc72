# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Texts that a client fetches from an address of their own: logs, and what commands printed."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict

from .calls import Call, Route
from .replies import Reply

KEPT = 200


class Results:
    """By an unguessable name and without a key: the clients fetch a result without one."""

    def __init__(self) -> None:
        self._texts: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def routes(self) -> list[Route]:
        return [Route("GET", "/logs/{name}", self.read, public=True)]

    def keep(self, text: str, base_url: str) -> str:
        """The address at which a text can be read from now on."""
        name = f"{secrets.token_hex(16)}.log"
        with self._lock:
            self._texts[name] = text
            while len(self._texts) > KEPT:
                self._texts.popitem(last=False)
        return f"{base_url}/logs/{name}"

    def read(self, call: Call) -> Reply:
        with self._lock:
            text = self._texts.get(call.parameters["name"])
        if text is None:
            return Reply(404, {"success": False, "error": "not_found", "msg": "No such log."})
        return Reply(200, text)
