# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a person must know although nobody looks: one JSON object per alert, posted to a webhook."""

from __future__ import annotations

import http.client
import json
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

TIMEOUT_S = 10.0


class Alerts:
    """Says each trouble of a box once, until it is over or becomes another one.

    :param url: where alerts are posted; empty for nowhere.
    :param say: told of every alert, and of a webhook that does not take one.
    """

    def __init__(self, url: str, say: Callable[[str, str], None]) -> None:
        if url and urlsplit(url).scheme not in ("http", "https"):
            raise TenantFailure(
                "config", f"{url!r} is no address of a webhook", safe="nothing was started", fix="give an http(s) URL"
            )
        self._url = url
        self._say = say
        self._raised: dict[str, str] = {}

    def raise_for(self, box: str, reason: str, text: str, **facts: Any) -> None:
        """Raise ``reason`` for ``box``; the same reason again says nothing more."""
        if self._raised.get(box) != reason and self.tell("alert", box, reason, text, **facts):
            self._raised[box] = reason

    def clear(self, box: str) -> None:
        """The trouble of ``box`` is over, and is said when there was one."""
        reason = self._raised.pop(box, "")
        if reason:
            self.tell("cleared", box, reason)

    def tell(self, event: str, box: str, reason: str, text: str = "", **facts: Any) -> bool:
        """Say and post one message, whatever was said before; False where the webhook did not take it: an alert that
        nobody got was not raised."""
        if text:
            self._say(box, text)
            facts = {"text": text, **facts}
        return self._post({"event": event, "at": records.utc_now(), "box": box, "reason": reason, **facts})

    def _post(self, message: dict[str, Any]) -> bool:
        if not self._url:
            return True
        body = json.dumps(message, default=str).encode()
        try:
            request = urllib.request.Request(  # noqa: S310 - the scheme was checked
                self._url, body, {"Content-Type": "application/json"}, method="POST"
            )
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):  # noqa: S310 - the scheme was checked
                return True
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._say(str(message["box"]), f"the webhook did not take an alert: {error}")
            return False
