# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Lambda's REST, version 1, below ``/lambda/api/v1``: ``/api/v1`` alone is vast.ai's here.

Paths, statuses, codes and fields follow Lambda's OpenAPI (1.8.3, cloud.lambda.ai/api/v1/openapi.json). Every answer is
``{"data": …}`` or ``{"error": {"code", "message", "suggestion"}}``. There is no verb that stops an instance without
deleting it, no price lower than that of its type, and nothing of it that bills after it but its file systems.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..calls import Call, Route
from ..contracts import Order
from ..holds import Held
from ..instances import Instance, Key, Phase
from ..market import Market
from ..offers import Machine
from ..refusals import MarketError
from ..replies import Reply
from ..requests import public_key_in
from .catalogue import offered, region_of, type_of, type_row
from .file_systems import mount_point
from .orders import Launch, file_system_in, ids_in, key_name_in, launch_in
from .refusals import bad, bad_key, missing, no_capacity, no_such_instance, refusal, refusal_body
from .rows import instance_row, status_of
from .terms import INSTANCE, KEY, VmTerms, id_of, number_of

BASE = "/lambda/api/v1"
LAUNCH = f"{BASE}/instance-operations/launch"
# Seconds between two requests, and between two launches, as the API publishes them.
INTERVAL_S, LAUNCH_INTERVAL_S = 1.0, 12.0
# For how long a terminated instance can still be asked for by its id.
TERMINATED_SHOWN_S = 600.0
_RUNTYPE = "ssh_direc"


class LambdaRoutes:
    def __init__(self, market: Market, api_key: str) -> None:
        self._market = market
        self._books = market.books
        self._files = market.file_systems
        self._api_key = api_key

    def routes(self) -> list[Route]:
        operations = f"{BASE}/instance-operations"
        return [
            self._route("GET", f"{BASE}/instance-types", self.list_types, "search"),
            self._route("GET", f"{BASE}/instances", self.list_instances, "list"),
            self._route("GET", f"{BASE}/instances/{{vm}}", self.show, "show"),
            self._route("POST", f"{BASE}/instances/{{vm}}", self.rename, "change"),
            self._route("POST", LAUNCH, self.launch, "create", LAUNCH_INTERVAL_S),
            self._route("POST", f"{operations}/restart", self.restart, "reboot"),
            self._route("POST", f"{operations}/terminate", self.terminate, "destroy"),
            self._route("GET", f"{BASE}/ssh-keys", self.list_keys, "keys"),
            self._route("POST", f"{BASE}/ssh-keys", self.add_key, "keys"),
            self._route("DELETE", f"{BASE}/ssh-keys/{{key}}", self.delete_key, "keys"),
            self._route("GET", f"{BASE}/file-systems", self.list_file_systems, "volumes"),
            self._route("POST", f"{BASE}/filesystems", self.create_file_system, "volumes"),
            self._route("DELETE", f"{BASE}/filesystems/{{file}}", self.delete_file_system, "volumes"),
        ]

    def _route(
        self, method: str, path: str, handler: Callable[[Call], Any], call: str, interval_s: float = INTERVAL_S
    ) -> Route:
        """A route with Lambda's own check of the key and its own errors, in place of vast.ai's."""

        def handle(request: Call) -> Reply:
            try:
                self._authorize(request)
                return Reply(200, {"data": handler(request)})
            except MarketError as error:
                return Reply(error.status, refusal_body(error))

        sold_out = Reply(400, refusal_body(no_capacity())) if path == LAUNCH else None
        return Route(method, path, handle, public=True, interval_s=interval_s, call=call, sold_out=sold_out)

    def _authorize(self, call: Call) -> None:
        if call.token is None or not secrets.compare_digest(call.token.encode(), self._api_key.encode()):
            raise bad_key()

    # --- instances ----------------------------------------------------------------------------------------------

    def list_types(self, _call: Call) -> dict[str, Any]:
        with self._books.reading() as (state, _now):
            taken = frozenset(one.machine_id for one in state.instances.values() if one.live)
        return offered(self._books.machines, taken)

    def list_instances(self, _call: Call) -> list[dict[str, Any]]:
        with self._books.reading() as (state, _now):
            found = [one for one in state.instances.values() if one.vm is not None and one.phase is not Phase.GONE]
        return [self._row(one) for one in sorted(found, key=lambda one: one.id)]

    def show(self, call: Call) -> dict[str, Any]:
        instance = self._vm(call.parameters["vm"])
        if self._is_only_listed(instance):
            raise no_such_instance()
        return self._row(instance)

    def rename(self, call: Call) -> dict[str, Any]:
        name = call.body.get("name")
        if not isinstance(name, str) or len(name) > 64:
            raise bad("name: must be text of at most 64 characters")
        with self._books.changing():
            instance = self._live(call.parameters["vm"])
            self._books.put(replace(instance, label=name, vm=replace(_terms(instance), name=name)))
        return self._row(self._vm(call.parameters["vm"]))

    def launch(self, call: Call) -> dict[str, Any]:
        order = launch_in(call.body)
        key = next((one for one in self._market.ssh_keys.of_account() if one.named == order.key), None)
        if key is None:
            raise missing(f"Specified SSH key {order.key[:60]!r} does not exist.")
        mounts = self._mounts(order)
        for machine in self._machines(order):
            terms = _terms_of(order, machine, mounts)
            try:
                made = self._market.contracts.rent(_contract(order, machine, terms))
            except MarketError as error:
                if error.code == "invalid_args":
                    continue  # taken meanwhile
                raise
            return {"instance_ids": [id_of(INSTANCE, made.id)]}
        raise no_capacity()

    def restart(self, call: Call) -> dict[str, Any]:
        instances = [self._live(name) for name in ids_in(call.body)]
        for instance in instances:
            if instance.phase in (Phase.RUNNING, Phase.EXITED):
                self._market.contracts.restart(instance.id, Phase.REBOOTING)
            elif instance.phase in (Phase.STOPPED, Phase.OUTBID, Phase.SCHEDULING):
                self._market.contracts.start(instance.id)
        return {"restarted_instances": [self._row(self._books.instance(one.id)) for one in instances]}

    def terminate(self, call: Call) -> dict[str, Any]:
        """All of them or none. Its root disk is gone with each, its file systems stay."""
        instances = [self._live(name) for name in ids_in(call.body)]
        self._files.measure()
        for instance in instances:
            self._market.contracts.destroy(instance.id)
        return {"terminated_instances": [{**self._row(one), "status": "terminating"} for one in instances]}

    def _machines(self, order: Launch) -> list[Machine]:
        """The free ones of this type and region, the cheapest to the market first."""
        with self._books.reading() as (state, _now):
            taken = {one.machine_id for one in state.instances.values() if one.live}
        known = [one for one in self._books.machines if type_of(one) == order.instance_type]
        if not known:
            raise missing("Specified instance type does not exist.")
        free = [one for one in known if one.machine_id not in taken and region_of(one) == order.region]
        return sorted(free, key=lambda one: (one.price, one.machine_id))

    def _mounts(self, order: Launch) -> tuple[tuple[int, str], ...]:
        named = [self._files.named(name) for name in order.file_systems]
        placed = {self._files.numbered(number): path for number, path in order.mounts}
        wanted = {**{one: mount_point(one) for one in named}, **placed}
        if any(one.region != order.region for one in wanted):
            code = "instance-operations/launch/file-system-in-wrong-region"
            raise refusal(400, code, "File system is in a different region than the instance.")
        if wanted:
            self._market.boxes.check_volumes()
        return tuple((one.id, path) for one, path in wanted.items())

    def _row(self, instance: Instance) -> dict[str, Any]:
        books, vm = self._books, _terms(instance)
        status = status_of(instance, books.holds.unheard_as(instance.id) is not None)
        if self._is_only_listed(instance):
            status = "active"  # a list that lags behind shows it as it ran
        names = {number: one.name for number, one in books.state.volumes.items()}
        return instance_row(instance, vm, names, status, self._market.boxes.vm_login())

    def _is_only_listed(self, instance: Instance) -> bool:
        return instance.phase is Phase.UNLOADED and self._books.holds.holds(instance.id, Held.ONLY_LISTED)

    def _vm(self, name: str) -> Instance:
        """Also a terminated one, for a while."""
        with self._books.reading() as (state, now):
            found = state.instances.get(number_of(INSTANCE, name))
        forgotten = found is not None and found.phase is Phase.GONE and now > _gone_at(found) + TERMINATED_SHOWN_S
        if found is None or found.vm is None or forgotten:
            raise no_such_instance()
        return found

    def _live(self, name: str) -> Instance:
        found = self._vm(name)
        if not found.live:
            raise no_such_instance()
        return found

    # --- keys ---------------------------------------------------------------------------------------------------

    def list_keys(self, _call: Call) -> list[dict[str, Any]]:
        return [_key_row(key) for key in self._market.ssh_keys.of_account()]

    def add_key(self, call: Call) -> dict[str, Any]:
        name = key_name_in(call.body)
        public_key = public_key_in({"ssh_key": call.body.get("public_key")})
        if any(key.named == name for key in self._market.ssh_keys.of_account()):
            raise refusal(400, "global/duplicate", "An SSH key with this name already exists.")
        return _key_row(self._market.ssh_keys.add(public_key, name))

    def delete_key(self, call: Call) -> dict[str, Any]:
        number = number_of(KEY, call.parameters["key"])
        if not any(key.id == number for key in self._market.ssh_keys.of_account()):
            raise missing("Specified SSH key does not exist.", 400)
        self._market.ssh_keys.delete(number)
        return {}

    # --- file systems -------------------------------------------------------------------------------------------

    def list_file_systems(self, _call: Call) -> list[dict[str, Any]]:
        return [self._files.row(one) for one in self._files.all()]

    def create_file_system(self, call: Call) -> dict[str, Any]:
        return self._files.row(self._files.create(file_system_in(call.body)))

    def delete_file_system(self, call: Call) -> dict[str, Any]:
        return {"deleted_ids": [self._files.delete(call.parameters["file"])]}


def _gone_at(instance: Instance) -> float:
    return instance.created_at if instance.destroyed_at is None else instance.destroyed_at


def _key_row(key: Key) -> dict[str, Any]:
    return {"id": id_of(KEY, key.id), "name": key.named, "public_key": key.public_key}


def _terms_of(order: Launch, machine: Machine, mounts: tuple[tuple[int, str], ...]) -> VmTerms:
    return VmTerms(
        name=order.name,
        instance_type=order.instance_type,
        region=order.region,
        gpus=machine.num_gpus,
        price=type_row(order.instance_type)["price_cents_per_hour"] / 100,
        keys=(order.key,),
        mounts=mounts,
        tags=order.tags,
        hostname=order.hostname,
        family=order.family,
    )


def _contract(order: Launch, machine: Machine, terms: VmTerms) -> Order:
    return Order(machine.offer_id, order.family, _RUNTYPE, 0.0, label=order.name or None, vm=terms)


def _terms(instance: Instance) -> VmTerms:
    """The terms of an instance that was found as one of Lambda's."""
    if instance.vm is None:
        raise no_such_instance()
    return instance.vm
