# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The client of RunPod's REST API: its endpoints, how its errors read, and which of its two versions is spoken.

An address that ends in ``/v1`` or ``/v2`` says the version. Any other is asked once: version 2, and where it is not
there, version 1. Only "there is no such thing" counts; a server that does not answer is not taken for an old one.

RunPod's create may answer 500 although the pod was made and bills (transformerlab-app #2305), so every answer to a
create that is not a pod, or a refusal below 500, is ambiguous: only the stamp can tell.

A list of pods is bare: it tells no total, so that a part of it looks like the whole. Who concludes that a pod is not
there asks for the pod itself.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
from typing import Any, Iterator, Mapping

from ..failures import TenantFailure
from ..rest_client import IDEMPOTENT, ONCE, SAFE, AmbiguousAnswer, Reply, RestClient, RestError, checked_id, is_id
from ..row_fields import fields, text
from .dead_man import DEPLOY, FIELD, Switch, deploy_inputs
from .generations import GENERATIONS, First

# Said with a 500 by version 1 and with a 400 by version 2, and as true a minute later.
_NO_CAPACITY = re.compile(
    r"no (longer any )?instances|not enough free gpus|does not have the resources|no instances currently|"
    r"no (available )?capacity|insufficient capacity",
    re.I,
)
# What says that a version is not there (any more).
_NOT_SERVED = (404, 405, 410, 501)
# Where version 1 is while the address is RunPod's own.
_HOST, _FIRST_HOST = "https://api.runpod.io", "https://rest.runpod.io"


class RunpodReply(Reply):
    """One answer. The API's own word is ``error``, its gateway's are ``detail``, ``title`` and ``message``."""

    MESSAGE_FIELDS = ("error", "detail", "title", "message")
    LASTING_CODES = ("no_capacity",)

    @property
    def error_fields(self) -> Mapping[str, Any]:
        found = self.json[0] if isinstance(self.json, list) and self.json else self.json
        return found if isinstance(found, dict) else {}

    @property
    def message(self) -> str:
        """Version 2 says in ``errors`` which fields were wrong; GraphQL says there all that it has to say."""
        errors = self.error_fields.get("errors")
        listed = [text(one) or text(fields(one).get("message")) for one in errors] if isinstance(errors, list) else []
        return " ".join(filter(None, [super().message, *listed]))

    @property
    def code(self) -> str:
        lacks = self.status >= 400 and _NO_CAPACITY.search(self.message) is not None
        return "no_capacity" if lacks else ""


class RunpodClient(RestClient[RunpodReply]):
    """One account on one API."""

    PLATFORM = "runpod"
    URL = _HOST
    KEY_VARIABLE = "RUNPOD_API_KEY"
    URL_VARIABLE = "RUNPOD_REST_URL"
    REPLY = RunpodReply

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._root = self.base_url
        self._spoken: First | None = None
        for one in GENERATIONS:
            if self._root.endswith(one.SUFFIX):
                self._root, self._spoken = self._root[: -len(one.SUFFIX)], one

    @property
    def account(self) -> str:
        """As in the base class; the same by both versions, because it is the same account."""
        root = _HOST if self._root == _FIRST_HOST else self._root
        return hashlib.sha256(f"{root}\0{self.key}".encode()).hexdigest()[:16]

    # -- the version ---------------------------------------------------------------------------------------------

    @property
    def api(self) -> First:
        """The version that is spoken. RestError, TenantFailure where neither is there."""
        if self._spoken is None:
            self._spoken = next((one for one in GENERATIONS if self._serves(one)), None)
        if self._spoken is None:
            raise TenantFailure(
                "config",
                f"{self._root} has neither version of RunPod's REST",
                safe="nothing was changed",
                fix=f"give RunPod's address as api_url ({_HOST}), or the root of a marketplace",
            )
        return self._spoken

    def _serves(self, version: First) -> bool:
        root = _FIRST_HOST if self._root == _HOST and version.SUFFIX == First.SUFFIX else self._root
        with self._at(root + version.SUFFIX):
            try:
                is_there = self.request("GET", version.PODS, SAFE, missing_ok=True).status != 404
            except RestError as refusal:
                if refusal.status not in _NOT_SERVED:
                    raise
                is_there = False
        if is_there:
            self.base_url = root + version.SUFFIX
        return is_there

    # -- reads ---------------------------------------------------------------------------------------------------

    def list_instances(self) -> list[dict[str, Any]]:
        """Every pod that the list shows. RestError for one that is malformed."""
        return self._rows(self.api.PODS)

    def get_instance(self, pod_id: str) -> dict[str, Any] | None:
        """One pod, or None when the API says that it is not there."""
        api, path = self.api, self._path_of(pod_id)
        reply = self.request("GET", path, SAFE, query=api.QUERY, missing_ok=True)
        if reply.status == 404:
            return None
        row = api.row(reply.json)
        if not _is_pod(row) or row["id"] != pod_id:
            raise self.malformed(f"the answer about pod {pod_id} is about something else")
        return dict(row)

    def list_volumes(self) -> list[dict[str, Any]]:
        return self._rows(self.api.VOLUMES)

    # -- writes --------------------------------------------------------------------------------------------------

    def create_pod(self, body: dict[str, Any], switch: Switch | None = None) -> str:
        """Rent a pod; its id. RestError: refused for certain. AmbiguousAnswer: it may be there.

        What is sent is sent once. Version 2 takes one card a create: the next is asked for when the API said for
        certain that it has none of the last, and made nothing.

        :param switch: what RunPod shall do to it by itself; nothing by default.
        """
        sends = [functools.partial(self._created, one) for one in self.api.create_bodies(body)]
        if switch is not None:
            sends = [functools.partial(self._deployed, one) for one in deploy_inputs(body, switch)]
        *others, last = sends
        for send in others:
            try:
                return send()
            except AmbiguousAnswer:
                raise
            except RestError as refusal:
                if refusal.code != "no_capacity":
                    raise
        return last()

    def _created(self, body: dict[str, Any]) -> str:
        reply = self.request("POST", self.api.PODS, ONCE, body=body)
        row = self.api.row(reply.json)
        if not _is_pod(row):
            raise AmbiguousAnswer("the create was answered without a pod", reply.status, "malformed")
        return str(row["id"])

    def _deployed(self, given: dict[str, Any]) -> str:
        """The same by GraphQL, which tells its refusals with a 200."""
        query = {"query": DEPLOY, "variables": {"input": given}}
        with self._at(_HOST if self._root == _FIRST_HOST else self._root):
            reply = self.request("POST", "/graphql", ONCE, body=query)
        data = reply.fields.get("data")
        made = fields(data.get(FIELD) if isinstance(data, dict) else None)
        if _has_id(made):
            return str(made["id"])
        what = f"the create was refused: {self.redact(reply.message) or 'no reason given'}"
        if _NO_CAPACITY.search(reply.message):
            raise RestError(what, reply.status, "no_capacity", safe="nothing was rented")
        raise AmbiguousAnswer(what, reply.status, "malformed")

    @contextlib.contextmanager
    def _at(self, url: str) -> Iterator[None]:
        before, self.base_url = self.base_url, url
        try:
            yield
        finally:
            self.base_url = before

    def set_state(self, pod_id: str, state: str) -> None:
        """Ask for ``running`` or ``stopped``."""
        path, body = self.api.verb(self._path_of(pod_id), "start" if state == "running" else "stop")
        try:
            self.request("POST", path, IDEMPOTENT, body=body)
        except RestError as refusal:
            # Version 2 refuses what is so already, which a request whose first answer was lost then hears.
            wanted = "RUNNING" if state == "running" else "EXITED"
            if refusal.status != 409 or (self.get_instance(pod_id) or {}).get("desiredStatus") != wanted:
                raise

    def destroy_instance(self, pod_id: str) -> bool:
        """Terminate; False when it was gone already."""
        return self.request("DELETE", self._path_of(pod_id), IDEMPOTENT, missing_ok=True).status < 400

    def create_volume(self, name: str, size_gb: int, data_center: str) -> str:
        """Make one; sent once. Its id. RestError: refused for certain. AmbiguousAnswer: it may be there."""
        api = self.api
        reply = self.request("POST", api.VOLUMES, ONCE, body=api.volume_body(name, size_gb, data_center))
        if not _has_id(reply.json):
            raise AmbiguousAnswer("the create was answered without a network volume", reply.status, "malformed")
        return str(reply.json["id"])

    def delete_volume(self, volume_id: str) -> bool:
        """Delete it, and what it holds; False when it was gone already."""
        path = f"{self.api.VOLUMES}/{checked_id(volume_id, 'a network volume')}"
        return self.request("DELETE", path, IDEMPOTENT, missing_ok=True).status < 400

    # -- plumbing ------------------------------------------------------------------------------------------------

    def _path_of(self, pod_id: str) -> str:
        return f"{self.api.PODS}/{checked_id(pod_id, 'a pod')}"

    def _rows(self, path: str) -> list[dict[str, Any]]:
        api = self.api
        rows = api.rows(self.request("GET", path, SAFE, query=api.QUERY).json, path)
        if not isinstance(rows, list) or not all(_has_id(row) for row in rows):
            raise self.malformed(f"the answer to GET {path} is no list of what has ids")
        return rows


def _has_id(row: Any) -> bool:
    return isinstance(row, dict) and is_id(row.get("id"))


def _is_pod(row: Any) -> bool:
    return _has_id(row) and isinstance(row.get("desiredStatus"), str)
