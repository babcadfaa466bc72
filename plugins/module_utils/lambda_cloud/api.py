# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The client of Lambda's REST API, version 1 (OpenAPI 1.8.3): its endpoints, and how its errors read.

A launch is sent once. Its refusals have codes of their own; anything else that is not an instance's id is ambiguous,
and only the stamp can tell.

A list tells no total, so that a part of it looks like the whole. Who concludes that an instance is not there asks for
the instance itself. One that is ``terminated`` is gone: the API goes on showing it for a while.
"""

from __future__ import annotations

from typing import Any, Mapping

from ..rest_client import IDEMPOTENT, ONCE, SAFE, Reply, RestClient, RestError, checked_id, is_id

# The older name, cloud.lambdalabs.com, redirects; no redirect is followed, for it would carry the key elsewhere.
CAPACITY = "instance-operations/launch/insufficient-capacity"
GONE = "terminated"
MOST_PAGES = 100
_LAUNCH, _CALL = "launch", "call"


class LambdaReply(Reply):
    """One answer: ``{"data": …}``, or ``{"error": {"code", "message", "suggestion"}}``."""

    @property
    def error_fields(self) -> Mapping[str, Any]:
        found = self.fields.get("error")
        return found if isinstance(found, dict) else {}

    @property
    def data(self) -> Any:
        return self.fields.get("data")

    @property
    def code(self) -> str:
        """The API's own code, but for the one that has a word on every market."""
        found = self.error_fields.get("code")
        return "no_capacity" if found == CAPACITY else str(found or "")

    @property
    def is_auth_error(self) -> bool:
        """A 403 is of an account that may not, whose key is good."""
        return self.status == 401

    @property
    def is_missing(self) -> bool:
        return self.status in (400, 404) and self.code == "global/object-does-not-exist"

    @property
    def is_certain_refusal(self) -> bool:
        """What came from behind the API (``provider/…``) does not say what happened there."""
        return super().is_certain_refusal and not self.code.startswith("provider/")


class LambdaClient(RestClient[LambdaReply]):
    """One account on one API."""

    PLATFORM = "lambda"
    URL = "https://cloud.lambda.ai/api/v1"
    HOSTS = ("cloud.lambda.ai", "cloud.lambdalabs.com")
    KEY_VARIABLE = "LAMBDA_API_KEY"
    URL_VARIABLE = "LAMBDA_API_URL"
    INTERVALS = {_LAUNCH: 12.0, _CALL: 1.0}  # noqa: RUF012 - declared as a class variable by the base
    REPLY = LambdaReply

    def error_of(self, method: str, path: str, repeat: str, reply: LambdaReply) -> RestError:
        if reply.status == 403 and reply.fields:
            said = self.redact(reply.message) or "no reason given"
            fix = "see to the account in the provider's console: its address, its payment, its verification"
            what = f"the API refused the account ({said})"
            return self.ERROR(what, 403, reply.code, safe="nothing was changed", fix=fix, kind="config")
        return super().error_of(method, path, repeat, reply)

    # -- reads ---------------------------------------------------------------------------------------------------

    def list_instances(self) -> list[dict[str, Any]]:
        """Every instance that is listed, without those that are terminated. RestError for a malformed list."""
        rows: list[dict[str, Any]] = []
        query: dict[str, str] = {}
        for _page in range(MOST_PAGES):
            reply = self.request("GET", "/instances", SAFE, _CALL, query=query)
            rows += self._rows(reply, "instances", "status")
            token = reply.fields.get("page_token")
            if not token:
                return [row for row in rows if row["status"] != GONE]
            query = {"page_token": str(token)}
        raise self.malformed(f"the list of instances has no end after {MOST_PAGES} pages")

    def get_instance(self, vm_id: str) -> dict[str, Any] | None:
        """One instance, or None when the API says that it is not there, or terminated."""
        reply = self.request("GET", f"/instances/{checked_id(vm_id, 'an instance')}", SAFE, _CALL, missing_ok=True)
        if reply.status == 404:
            return None
        row = reply.data
        if not _has(row, "status") or row["id"] != vm_id:
            raise self.malformed(f"the answer about instance {vm_id} is about something else")
        return None if row["status"] == GONE else dict(row)

    def list_types(self) -> dict[str, dict[str, Any]]:
        """Every instance type by name, with the regions where one is free now."""
        found = self.request("GET", "/instance-types", SAFE, _CALL).data
        if not isinstance(found, dict) or not all(isinstance(row, dict) for row in found.values()):
            raise self.malformed("the answer about instance types is no table of them")
        return found

    def list_file_systems(self) -> list[dict[str, Any]]:
        return self._rows(self.request("GET", "/file-systems", SAFE, _CALL), "file systems", "name")

    def list_keys(self) -> list[dict[str, Any]]:
        return self._rows(self.request("GET", "/ssh-keys", SAFE, _CALL), "ssh keys", "name")

    # -- writes --------------------------------------------------------------------------------------------------

    def launch(self, body: Mapping[str, Any]) -> str:
        """Rent an instance; sent once. Its id. RestError: refused for certain. AmbiguousAnswer: it may be there."""
        reply = self.request("POST", "/instance-operations/launch", ONCE, _LAUNCH, body=body)
        found = reply.data.get("instance_ids") if isinstance(reply.data, dict) else None
        if not isinstance(found, list) or len(found) != 1 or not is_id(found[0]):
            raise self.AMBIGUOUS("the launch was answered without one instance's id", reply.status, "malformed")
        return str(found[0])

    def add_key(self, name: str, public_key: str) -> None:
        """Add a public key. RestError: refused. AmbiguousAnswer: it may be there."""
        self.request("POST", "/ssh-keys", ONCE, _CALL, body={"name": name, "public_key": public_key})

    def restart_instance(self, vm_id: str) -> None:
        """Restart; sent once, because another one would end what the first one began. AmbiguousAnswer."""
        self.request(
            "POST",
            "/instance-operations/restart",
            ONCE,
            _CALL,
            body={"instance_ids": [checked_id(vm_id, "an instance")]},
        )

    def destroy_instance(self, vm_id: str) -> bool:
        """Terminate; False when it was gone already."""
        body = {"instance_ids": [checked_id(vm_id, "an instance")]}
        path = "/instance-operations/terminate"
        return self.request("POST", path, IDEMPOTENT, _CALL, body=body, missing_ok=True).status < 400

    # -- plumbing ------------------------------------------------------------------------------------------------

    def _rows(self, reply: LambdaReply, what: str, field: str) -> list[dict[str, Any]]:
        rows = reply.data
        if not isinstance(rows, list) or not all(_has(row, field) for row in rows):
            raise self.malformed(f"the list of {what} is no list of what has an id and a {field}")
        return rows


def _has(row: Any, field: str) -> bool:
    return isinstance(row, dict) and is_id(row.get("id")) and isinstance(row.get(field), str)
