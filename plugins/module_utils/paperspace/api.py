# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The client of Paperspace's REST API, version 1 (api.paperspace.com/v1): its endpoints, and how its errors read.

Paths, fields and states are those of its OpenAPI as the provider's own command line ships it (Paperspace/cli
``api/openapi.ts``). What that leaves open is taken from clients in use: lists are read until ``hasMore`` is false
(Metaphysic-ai/terraform-provider-paperspace), a key comes onto a machine by a startup script (skypilot-org/skypilot
``sky/provision/paperspace``), and "out of capacity" is a sentence, no code (Paperspace/gradient-cli #327).

A list tells no total, so that a part of it looks like the whole. Who concludes that a machine is not there asks for
the machine itself.
"""

from __future__ import annotations

import re
from typing import Any, Iterable, Mapping

from ..rest_client import IDEMPOTENT, ONCE, SAFE, Reply, RestClient, RestError, checked_id, is_id

MOST_PAGES = 100
_PAGE = "100"
_NO_CAPACITY = re.compile(r"out of capacity|no capacity|insufficient capacity|not enough capacity", re.I)
# A verb that is repeated while the machine does it already (SkyPilot sees the first of them).
_UNDER_WAY = {"start": "currently starting", "stop": "currently stopping"}
_ADDRESS = re.compile(r"[0-9a-fA-F.:]{3,45}\Z")
# The events after which a machine runs, or may run.
_STARTS = ("create", "start", "restart")
SCRIPTS, LAST_START = "startupScripts", "lastStart"


class PaperspaceReply(Reply):
    """One answer; an error is ``{"code", "message", "details"?}``, the codes are tRPC's (``NOT_FOUND``)."""

    LASTING_CODES = ("no_capacity",)

    @property
    def code(self) -> str:
        """The API's own word, but for the one that has a word on every market."""
        if self.status >= 400 and _NO_CAPACITY.search(self.message):
            return "no_capacity"
        found = self.fields.get("code")
        return found if isinstance(found, str) and self.status >= 400 else ""

    @property
    def is_auth_error(self) -> bool:
        """A 403 is of a team that may not, whose key is good."""
        return self.status == 401

    @property
    def is_missing(self) -> bool:
        return self.status == 404 and self.code == "NOT_FOUND"


class PaperspaceClient(RestClient[PaperspaceReply]):
    """One team on one API."""

    PLATFORM = "paperspace"
    URL = "https://api.paperspace.com/v1"
    HOSTS = ("api.paperspace.com",)
    KEY_VARIABLE = "PAPERSPACE_API_KEY"
    URL_VARIABLE = "PAPERSPACE_API_URL"
    REPLY = PaperspaceReply

    # -- machines ------------------------------------------------------------------------------------------------

    def list_instances(self) -> list[dict[str, Any]]:
        """Every machine that is listed. RestError for a malformed list.

        Each row tells the names of its startup scripts beside its own (``startupScripts``), for ours carry the stamp
        too: the name of a machine is edited in the console. They are asked for only where a name may have been.
        """
        rows = self._listed("/machines", "machines")
        if not all(_is_machine(row) for row in rows):
            raise self.malformed("the list of machines is no list of what has an id and a state")
        return self._with_scripts(rows)

    def get_instance(self, machine_id: str) -> dict[str, Any] | None:
        """One machine, or None when the API says that it is not there.

        With its scripts as in the list, and when it was last told to run (``lastStart``): rows tell no start.
        """
        path = f"/machines/{checked_id(machine_id, 'a machine')}"
        reply = self.request("GET", path, SAFE, missing_ok=True)
        if reply.status == 404:
            return None
        row = reply.fields
        if not _is_machine(row) or row["id"] != machine_id:
            raise self.malformed(f"the answer about machine {machine_id} is about something else")
        return {**self._with_scripts([row])[0], LAST_START: self._last_start(machine_id)}

    def create_machine(self, body: Mapping[str, Any]) -> str:
        """Rent a machine; sent once. Its id. RestError: refused for certain. AmbiguousAnswer: it may be there."""
        made = self.request("POST", "/machines", ONCE, body=body).fields.get("data")
        if not isinstance(made, dict) or not _is_machine(made):
            raise self.AMBIGUOUS("the create was answered without a machine", 200, "malformed")
        return str(made["id"])

    def set_state(self, machine_id: str, state: str) -> None:
        """Ask for ``running`` or ``stopped``. A body, for the API takes no PATCH without one."""
        verb = "start" if state == "running" else "stop"
        try:
            self.request("PATCH", f"/machines/{checked_id(machine_id, 'a machine')}/{verb}", IDEMPOTENT, body={})
        except RestError as refusal:
            if _UNDER_WAY[verb] not in refusal.what:
                raise

    def destroy_instance(self, machine_id: str) -> bool:
        """Delete a machine that is off; False when it was gone already."""
        path = f"/machines/{checked_id(machine_id, 'a machine')}"
        return self.request("DELETE", path, IDEMPOTENT, missing_ok=True).status < 400

    # -- what a machine needs, and what it leaves --------------------------------------------------------------------

    def list_templates(self) -> list[dict[str, Any]]:
        """The provider's templates and the team's own."""
        return self._with_ids("/os-templates", "templates") + self.list_custom_templates()

    def list_custom_templates(self) -> list[dict[str, Any]]:
        return self._with_ids("/custom-templates", "custom templates")

    def list_snapshots(self) -> list[dict[str, Any]]:
        return self._with_ids("/snapshots", "snapshots")

    def list_shared_drives(self) -> list[dict[str, Any]]:
        """Without the password that the API shows with each."""
        rows = self._with_ids("/shared-drives", "shared drives")
        return [{name: value for name, value in row.items() if name != "password"} for row in rows]

    def list_public_ips(self) -> list[dict[str, Any]]:
        """The static ones, which are the team's until it releases them."""
        rows = self._listed("/public-ips", "public IPs")
        if not all(isinstance(row.get("ip"), str) and _ADDRESS.match(row["ip"]) for row in rows):
            raise self.malformed("the list of public IPs is no list of addresses")
        return rows

    def release_public_ip(self, address: str) -> bool:
        """Give a static address back; False when the team no longer had it."""
        if not _ADDRESS.match(address):
            raise self.malformed(f"{ascii(address)[:60]} is not an address")
        return self.request("DELETE", f"/public-ips/{address}", IDEMPOTENT, missing_ok=True).status < 400

    def list_scripts(self) -> list[dict[str, Any]]:
        return self._with_ids("/startup-scripts", "startup scripts")

    def create_script(self, name: str, script: str) -> str:
        """A script that runs once on the first boot; its id. One that was made twice costs nothing."""
        body = {"name": name, "script": script, "isRunOnce": True}
        made = self.request("POST", "/startup-scripts", IDEMPOTENT, body=body).json
        if not isinstance(made, dict) or not is_id(made.get("id")):
            raise self.malformed("the new startup script has no id")
        return str(made["id"])

    def delete_script(self, script_id: str) -> None:
        path = f"/startup-scripts/{checked_id(script_id, 'a startup script')}"
        self.request("DELETE", path, IDEMPOTENT, missing_ok=True)

    # -- plumbing ------------------------------------------------------------------------------------------------

    def _with_scripts(self, machines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        rows = list(machines)
        if not any(_may_be_renamed(row) for row in rows):
            return [dict(row) for row in rows]
        names: dict[str, list[str]] = {}
        for script in self.list_scripts():
            for machine in script.get("assignedMachineIds") or ():
                names.setdefault(str(machine), []).append(str(script.get("name") or ""))
        return [{**row, SCRIPTS: names.get(str(row["id"]), [])} for row in rows]

    def _last_start(self, machine_id: str) -> str | None:
        """When the machine was last told to run, in the API's words; None where it does not tell."""
        events = self._listed("/machine-events", "machine events", machineId=machine_id)
        told = [event.get("dtStarted") or event.get("dtCreated") for event in events if event.get("name") in _STARTS]
        return max((moment for moment in told if isinstance(moment, str)), default=None)

    def _with_ids(self, path: str, what: str) -> list[dict[str, Any]]:
        rows = self._listed(path, what)
        if not all(is_id(row.get("id")) for row in rows):
            raise self.malformed(f"the list of {what} is no list of what has ids")
        return rows

    def _listed(self, path: str, what: str, **query: str) -> list[dict[str, Any]]:
        """All pages of a list: ``{"items", "hasMore", "nextPage"}``."""
        rows: list[dict[str, Any]] = []
        asked = {"limit": _PAGE, **query}
        for _page in range(MOST_PAGES):
            found = self.request("GET", path, SAFE, query=asked).fields
            items, more = found.get("items"), found.get("hasMore")
            if not isinstance(items, list) or not all(isinstance(one, dict) for one in items):
                raise self.malformed(f"the list of {what} is no list of rows")
            if not isinstance(more, bool):
                raise self.malformed(f"the list of {what} does not say whether it is whole")
            rows += items
            if not more:
                return rows
            cursor = found.get("nextPage")
            if not isinstance(cursor, str) or not cursor or cursor == asked.get("after"):
                raise self.malformed(f"the list of {what} says that there is more, and not where")
            asked["after"] = cursor
        raise self.malformed(f"the list of {what} has no end after {MOST_PAGES} pages")


def _is_machine(row: Any) -> bool:
    return isinstance(row, dict) and is_id(row.get("id")) and isinstance(row.get("state"), str)


def _may_be_renamed(row: Mapping[str, Any]) -> bool:
    """Whether its name is none of ours, though the machine may be."""
    return not str(row.get("name") or "").startswith("gt1/")
