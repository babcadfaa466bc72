# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Paperspace's REST, version 1, below ``/paperspace/v1``: ``/v1`` alone is RunPod's here.

Paths, verbs, fields and states follow its OpenAPI (Paperspace/cli ``api/openapi.ts``): lists are
``{"items", "hasMore", "nextPage"}``, what is done to a machine is answered with ``{"data", "event"}``, an error is
``{"code", "message"}`` with the codes of tRPC. Where it is silent: that nothing is free is a 400 with the provider's
own sentence, and a machine that is not off is not deleted (400).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any

from ..calls import Call, Route
from ..holds import Held
from ..instances import Instance, Phase
from ..market import Market
from ..refusals import MarketError
from ..replies import Reply
from . import rows
from .beside import ADDRESS, DRIVE, SNAPSHOT, TEMPLATE
from .catalogue import region_in, template_rows
from .machines import NO_CAPACITY, terms_of
from .orders import bad, claim_in, drive_in, machine_in, missing, of_machine_in, script_in
from .terms import DRIVE as DRIVE_ID
from .terms import MACHINE, SCRIPT, number_of
from .terms import SNAPSHOT as SNAPSHOT_ID
from .terms import TEMPLATE as TEMPLATE_ID

BASE = "/paperspace/v1"
MOST_ROWS = 120


class PaperspaceRoutes:
    def __init__(self, market: Market, api_key: str) -> None:
        self._machines = market.core_machines
        self._beside = market.core_machines.beside
        self._books = market.books
        self._api_key = api_key

    def routes(self) -> list[Route]:
        one = "/machines/{machine}"
        listed = [
            ("GET", "/machines", self.list_machines, "list"),
            ("POST", "/machines", self.create, "create"),
            ("GET", one, self.show, "show"),
            ("PUT", one, self.rename, "change"),
            ("DELETE", one, self.delete, "destroy"),
            ("PATCH", f"{one}/start", self.start, "change"),
            ("PATCH", f"{one}/stop", self.stop, "change"),
            ("PATCH", f"{one}/restart", self.restart, "reboot"),
            ("GET", "/machine-events", self.list_events, "show"),
            ("GET", "/os-templates", self.list_templates, "search"),
            ("GET", "/custom-templates", self.list_own_templates, "search"),
            ("POST", "/custom-templates", self.create_template, "volumes"),
            ("DELETE", "/custom-templates/{stored}", self.delete_template, "volumes"),
            ("GET", "/startup-scripts", self.list_scripts, "keys"),
            ("POST", "/startup-scripts", self.create_script, "keys"),
            ("DELETE", "/startup-scripts/{script}", self.delete_script, "keys"),
            ("GET", "/public-ips", self.list_addresses, "volumes"),
            ("POST", "/public-ips", self.claim, "volumes"),
            ("PUT", "/public-ips/{ip}", self.assign, "volumes"),
            ("DELETE", "/public-ips/{ip}", self.release, "volumes"),
            ("GET", "/snapshots", self.list_snapshots, "volumes"),
            ("POST", "/snapshots", self.create_snapshot, "volumes"),
            ("DELETE", "/snapshots/{stored}", self.delete_snapshot, "volumes"),
            ("GET", "/shared-drives", self.list_drives, "volumes"),
            ("POST", "/shared-drives", self.create_drive, "volumes"),
            ("DELETE", "/shared-drives/{stored}", self.delete_drive, "volumes"),
        ]
        return [self._route(method, BASE + path, handler, call) for method, path, handler, call in listed]

    def _route(self, method: str, path: str, handler: Callable[[Call], Any], call: str) -> Route:
        """A route with Paperspace's own check of the key and its own errors, in place of vast.ai's."""

        def handle(request: Call) -> Reply:
            try:
                self._authorize(request)
                return Reply(200, handler(request))
            except MarketError as error:
                return Reply(error.status, _refusal_body(error))

        sold_out = Reply(400, _refusal_body(bad(NO_CAPACITY))) if call == "create" else None
        return Route(method, path, handle, public=True, call=call, sold_out=sold_out)

    def _authorize(self, call: Call) -> None:
        if call.token is None or not secrets.compare_digest(call.token.encode(), self._api_key.encode()):
            raise MarketError(401, "UNAUTHORIZED", "You are not logged in.")

    # --- machines -----------------------------------------------------------------------------------------------

    def list_machines(self, call: Call) -> dict[str, Any]:
        found = [self._row(one) for one in self._machines.all()]
        for name, field in (("name", "name"), ("region", "region"), ("machineType", "machineType")):
            if name in call.query:
                found = [row for row in found if row[field] == call.query[name]]
        return _page(found, call)

    def create(self, call: Call) -> dict[str, Any]:
        return self._done(self._machines.create(machine_in(call.body)))

    def show(self, call: Call) -> dict[str, Any]:
        instance = self._machines.find(call.parameters["machine"])
        if self._is_only_listed(instance):
            raise missing("Machine not found")
        return self._row(instance)

    def rename(self, call: Call) -> dict[str, Any]:
        name = call.body.get("name")
        if list(call.body) != ["name"] or not isinstance(name, str) or not name:
            raise bad("only the name is changed here")
        return self._done(self._machines.rename(self._living(call), name))

    def start(self, call: Call) -> dict[str, Any]:
        return self._done(self._machines.start(self._living(call)))

    def stop(self, call: Call) -> dict[str, Any]:
        return self._done(self._machines.stop(self._living(call)))

    def restart(self, call: Call) -> dict[str, Any]:
        return self._done(self._machines.restart(self._living(call)))

    def delete(self, call: Call) -> dict[str, Any]:
        return self._done(self._machines.delete(self._living(call)))

    def list_events(self, call: Call) -> dict[str, Any]:
        wanted = call.query.get("machineId")
        machines = self._machines.all() if wanted is None else [self._machines.find(wanted)]
        return _page([row for one in machines for row in rows.event_rows(one, terms_of(one))], call)

    def _living(self, call: Call) -> Instance:
        return self._machines.living(call.parameters["machine"])

    def _done(self, instance: Instance) -> dict[str, Any]:
        return {"data": self._row(instance), "event": rows.event_rows(instance, terms_of(instance))[-1]}

    def _row(self, instance: Instance) -> dict[str, Any]:
        core, machine = terms_of(instance), self._books.machine(instance.machine_id)
        if self._is_only_listed(instance):  # a list that lags behind shows it as it was
            return {**rows.machine_row(instance, core, machine, "off"), "dtDeleted": None}
        return rows.machine_row(instance, core, machine, rows.state_of(instance))

    def _is_only_listed(self, instance: Instance) -> bool:
        return instance.phase is Phase.UNLOADED and self._books.holds.holds(instance.id, Held.ONLY_LISTED)

    # --- startup scripts --------------------------------------------------------------------------------------------

    def list_scripts(self, call: Call) -> dict[str, Any]:
        with self._books.reading() as (state, _now):
            living = [one for one in state.instances.values() if one.live and one.core is not None]
            found = [
                rows.script_row(number, script, [one.id for one in living if terms_of(one).script == number])
                for number, script in sorted(state.scripts.items())
            ]
        if "name" in call.query:
            found = [row for row in found if row["name"] == call.query["name"]]
        return _page(found, call)

    def create_script(self, call: Call) -> dict[str, Any]:
        order = script_in(call.body)
        with self._books.changing() as (state, now):
            number = state.take_id()
            made = {"id": number, "name": order.name, "script": order.script, "once": order.once, "created_at": now}
            state.scripts[number] = made
        return rows.script_row(number, made, [])

    def delete_script(self, call: Call) -> dict[str, Any]:
        number = number_of(SCRIPT, call.parameters["script"])
        with self._books.changing() as (state, _now):
            if state.scripts.pop(number, None) is None:
                raise missing("Startup script not found")
        return {"id": call.parameters["script"]}

    # --- what bills beside machines -----------------------------------------------------------------------------------

    def list_templates(self, call: Call) -> dict[str, Any]:
        return _page(template_rows(self._machines.types()), call)

    def list_own_templates(self, call: Call) -> dict[str, Any]:
        types = self._machines.types()
        return _page([rows.template_row(one, types) for one in self._beside.all(TEMPLATE)], call)

    def create_template(self, call: Call) -> dict[str, Any]:
        made = self._beside.store(TEMPLATE, of_machine_in(call.body))
        return {"data": rows.template_row(made, self._machines.types())}

    def delete_template(self, call: Call) -> dict[str, Any]:
        gone = self._beside.delete(TEMPLATE, number_of(TEMPLATE_ID, call.parameters["stored"]))
        return {"data": rows.template_row(gone, self._machines.types())}

    def list_addresses(self, call: Call) -> dict[str, Any]:
        found = self._beside.all(ADDRESS)
        if "region" in call.query:
            found = [one for one in found if one.place == region_in(call.query["region"])]
        return _page([rows.address_row(one) for one in found], call, "ip")

    def claim(self, call: Call) -> dict[str, Any]:
        return rows.address_row(self._beside.claim(claim_in(call.body)))

    def assign(self, call: Call) -> dict[str, Any]:
        stored, wanted = self._address(call), call.body.get("machineId")
        owner = self._machines.living(wanted).id if isinstance(wanted, str) else 0
        return rows.address_row(self._beside.assign(stored, owner))

    def release(self, call: Call) -> dict[str, Any]:
        stored = self._address(call)
        if stored.owner:
            raise bad("The public IP is assigned to a machine.")
        self._beside.delete(ADDRESS, stored.id)
        return {"ip": stored.name}

    def _address(self, call: Call) -> Any:
        found = [one for one in self._beside.all(ADDRESS) if one.name == call.parameters["ip"]]
        if not found:
            raise missing("Public IP not found")
        return found[0]

    def list_snapshots(self, call: Call) -> dict[str, Any]:
        found = self._beside.all(SNAPSHOT)
        if "machineId" in call.query:
            found = [one for one in found if one.owner == number_of(MACHINE, call.query["machineId"])]
        return _page([rows.snapshot_row(one) for one in found], call)

    def create_snapshot(self, call: Call) -> dict[str, Any]:
        return {"data": rows.snapshot_row(self._beside.store(SNAPSHOT, of_machine_in(call.body)))}

    def delete_snapshot(self, call: Call) -> dict[str, Any]:
        number = number_of(SNAPSHOT_ID, call.parameters["stored"])
        return {"data": rows.snapshot_row(self._beside.delete(SNAPSHOT, number))}

    def list_drives(self, call: Call) -> dict[str, Any]:
        return _page([rows.drive_row(one) for one in self._beside.all(DRIVE)], call)

    def create_drive(self, call: Call) -> dict[str, Any]:
        return rows.drive_row(self._beside.store(DRIVE, drive_in(call.body)))

    def delete_drive(self, call: Call) -> dict[str, Any]:
        return rows.drive_row(self._beside.delete(DRIVE, number_of(DRIVE_ID, call.parameters["stored"])))


def _refusal_body(error: MarketError) -> dict[str, Any]:
    """What the market itself refuses has a code of its own, and here one of tRPC's."""
    code = error.code if error.code.isupper() else {404: "NOT_FOUND"}.get(error.status, "BAD_REQUEST")
    return {"code": code, "message": error.message}


def _page(found: Sequence[dict[str, Any]], call: Call, key: str = "id") -> dict[str, Any]:
    """Rows after the cursor, as many as are asked for."""
    limit = call.query.get("limit", "25")
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit) <= MOST_ROWS:
        raise bad(f"limit: 1 to {MOST_ROWS}")
    after = call.query.get("after")
    places = [place for place, row in enumerate(found, 1) if row[key] == after]
    if after is not None and not places:
        raise bad("after: no such cursor")
    begin = places[0] if places else 0
    shown = list(found[begin : begin + int(limit)])
    more = begin + len(shown) < len(found)
    page: dict[str, Any] = {"items": shown, "hasMore": more}
    return {**page, "nextPage": shown[-1][key]} if more else page
