# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The client of RunPod's REST API, version 1 (rest.runpod.io/v1): its endpoints, and how its errors read.

RunPod's create may answer 500 although the pod was made and bills (transformerlab-app #2305), so every answer to a
create that is not a pod, or a refusal below 500, is ambiguous: only the stamp can tell.

A list of pods is bare: it tells no total, so that a part of it looks like the whole. Who concludes that a pod is not
there asks for the pod itself.
"""

from __future__ import annotations

import re
from typing import Any, Mapping

from ..rest_client import IDEMPOTENT, ONCE, SAFE, AmbiguousAnswer, Reply, RestClient, checked_id, is_id

# Said with a 500, and as true a minute later.
_NO_CAPACITY = re.compile(
    r"no (longer any )?instances|not enough free gpus|does not have the resources|no instances currently", re.I
)
_WHOLE = {"includeMachine": "true", "includeNetworkVolume": "true"}


class RunpodReply(Reply):
    """One answer. The API's own word is ``error``, its gateway's are ``detail``, ``title`` and ``message``."""

    MESSAGE_FIELDS = ("error", "detail", "title", "message")
    LASTING_CODES = ("no_capacity",)

    @property
    def error_fields(self) -> Mapping[str, Any]:
        found = self.json[0] if isinstance(self.json, list) and self.json else self.json
        return found if isinstance(found, dict) else {}

    @property
    def code(self) -> str:
        lacks = self.status >= 400 and _NO_CAPACITY.search(self.message) is not None
        return "no_capacity" if lacks else ""


class RunpodClient(RestClient[RunpodReply]):
    """One account on one API."""

    PLATFORM = "runpod"
    URL = "https://rest.runpod.io/v1"
    KEY_VARIABLE = "RUNPOD_API_KEY"
    URL_VARIABLE = "RUNPOD_REST_URL"
    REPLY = RunpodReply

    # -- reads ---------------------------------------------------------------------------------------------------

    def list_instances(self) -> list[dict[str, Any]]:
        """Every pod that the list shows. RestError for one that is malformed."""
        return self._rows("GET", "/pods")

    def get_instance(self, pod_id: str) -> dict[str, Any] | None:
        """One pod, or None when the API says that it is not there."""
        reply = self.request("GET", f"/pods/{checked_id(pod_id, 'a pod')}", SAFE, query=_WHOLE, missing_ok=True)
        if reply.status == 404:
            return None
        if not _is_pod(reply.json) or reply.json["id"] != pod_id:
            raise self.malformed(f"the answer about pod {pod_id} is about something else")
        return dict(reply.json)

    def list_network_volumes(self) -> list[dict[str, Any]]:
        return self._rows("GET", "/networkvolumes")

    # -- writes --------------------------------------------------------------------------------------------------

    def create_pod(self, body: dict[str, Any]) -> str:
        """Rent a pod; sent once. Its id. RestError: refused for certain. AmbiguousAnswer: it may be there."""
        reply = self.request("POST", "/pods", ONCE, body=body)
        if not _is_pod(reply.json):
            raise AmbiguousAnswer("the create was answered without a pod", reply.status, "malformed")
        return str(reply.json["id"])

    def set_state(self, pod_id: str, state: str) -> None:
        """Ask for ``running`` or ``stopped``."""
        verb = "start" if state == "running" else "stop"
        self.request("POST", f"/pods/{checked_id(pod_id, 'a pod')}/{verb}", IDEMPOTENT)

    def destroy_instance(self, pod_id: str) -> bool:
        """Terminate; False when it was gone already."""
        return self.request("DELETE", f"/pods/{checked_id(pod_id, 'a pod')}", IDEMPOTENT, missing_ok=True).status < 400

    # -- plumbing ------------------------------------------------------------------------------------------------

    def _rows(self, method: str, path: str) -> list[dict[str, Any]]:
        rows = self.request(method, path, SAFE, query=_WHOLE).json
        if not isinstance(rows, list) or not all(_has_id(row) for row in rows):
            raise self.malformed(f"the answer to {method} {path} is no list of what has ids")
        return rows


def _has_id(row: Any) -> bool:
    return isinstance(row, dict) and is_id(row.get("id"))


def _is_pod(row: Any) -> bool:
    return _has_id(row) and isinstance(row.get("desiredStatus"), str)
