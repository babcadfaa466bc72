# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""RunPod's REST, version 1: pods and network volumes, below ``/v1`` as on rest.runpod.io.

Paths, statuses and fields follow RunPod's OpenAPI (runpod/docs ``api-reference/openapi.json``). Where it is silent:
that no GPU is left is a 500 with the message of the older API (runpod-python #21, #168), and so is a resume whose host
has no GPU free; an error is ``{"error", "status"}``. Time and money are the market's: a pod is a contract on one of its
machines, which nobody else can have meanwhile.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..calls import Call, Route
from ..contracts import Order
from ..engines.control import delete_tree
from ..holds import Held
from ..instances import Instance, Phase
from ..market import Market
from ..offers import Machine
from ..refusals import MarketError
from ..replies import Reply
from ..volumes import Volume
from .orders import PodOrder, bad, pod_order, volume_order
from .pods import DATA_CENTERS, GPU_TYPES, own_volume, pod_row, volume_row
from .terms import PodTerms, network_volume_rate, number_of

PODS, VOLUMES = "/v1/pods", "/v1/networkvolumes"
NO_MACHINE = (
    "There are no longer any instances available with the requested specifications. Please refresh and try again."
)
NO_GPU = "There are not enough free GPUs on the host machine to start this pod."
# The kind of box that the engines know as one reached by its own sshd.
_RUNTYPE = "ssh_direc"


class RunpodRoutes:
    def __init__(self, market: Market, api_key: str) -> None:
        self._market = market
        self._books = market.books
        self._api_key = api_key

    def routes(self) -> list[Route]:
        one, volume = f"{PODS}/{{pod}}", f"{VOLUMES}/{{volume}}"
        return [
            self._route("GET", PODS, self.list_pods, "list"),
            self._route("POST", PODS, self.create, "create", 201),
            self._route("GET", one, self.show, "show"),
            self._route("DELETE", one, self.terminate, "destroy", 204),
            self._route("POST", f"{one}/start", self.start, "change"),
            self._route("POST", f"{one}/stop", self.stop, "change"),
            self._route("POST", f"{one}/restart", self.restart, "reboot"),
            self._route("GET", VOLUMES, self.list_volumes, "volumes"),
            self._route("POST", VOLUMES, self.create_volume, "volumes", 201),
            self._route("GET", volume, self.show_volume, "volumes"),
            self._route("DELETE", volume, self.delete_volume, "volumes", 204),
        ]

    def _route(self, method: str, path: str, handler: Callable[[Call], Any], call: str, done: int = 200) -> Route:
        """A route with RunPod's own check of the key and its own errors, in place of vast.ai's."""

        def handle(request: Call) -> Reply:
            try:
                self._authorize(request)
                body = handler(request)
            except MarketError as refusal:
                return Reply(refusal.status, {"error": refusal.message, "status": refusal.status})
            return Reply(done, "" if done == 204 else body)

        return Route(method, path, handle, public=True, call=call)

    def _authorize(self, call: Call) -> None:
        if call.token is None or not secrets.compare_digest(call.token.encode(), self._api_key.encode()):
            raise MarketError(401, "unauthorized", "Unauthorized request, please check your API key.")

    # --- pods ---------------------------------------------------------------------------------------------------

    def list_pods(self, call: Call) -> list[dict[str, Any]]:
        with self._books.reading() as (state, _now):
            pods = [one for one in state.instances.values() if one.pod is not None and one.phase is not Phase.GONE]
        rows = [self._row(one, call) for one in sorted(pods, key=lambda one: one.id)]
        wanted = {name: call.query[name] for name in ("name", "desiredStatus", "id") if name in call.query}
        return [row for row in rows if all(row[name] == value for name, value in wanted.items())]

    def show(self, call: Call) -> dict[str, Any]:
        instance = self._pod(call)
        if instance.phase is Phase.UNLOADED and self._books.holds.holds(instance.id, Held.ONLY_LISTED):
            raise self._missing(call)
        return self._row(instance, call)

    def create(self, call: Call) -> dict[str, Any]:
        order = pod_order(call.body)
        volume = self._volume(order.network_volume) if order.network_volume else None
        if order.volume_gb or volume is not None:
            self._market.boxes.check_volumes()
        for machine in self._machines(order, volume):
            terms = _terms_of(order, machine, self._books.clock.now())
            try:
                instance = self._market.contracts.rent(self._contract(order, machine, terms))
            except MarketError as refusal:
                if refusal.code == "invalid_args":
                    continue  # taken meanwhile, or too small
                raise
            return self._row(instance, call)
        raise MarketError(500, "no_instances", NO_MACHINE)

    def start(self, call: Call) -> dict[str, Any]:
        instance = self._pod(call)
        pod = _terms(instance)
        machine = self._books.machine(instance.machine_id)
        with self._books.changing() as (_state, now):
            if instance.phase in (Phase.STOPPED, Phase.OUTBID, Phase.SCHEDULING):
                if any(one.live and one.wants_card and one is not instance for one in self._books.tenants(machine)):
                    raise MarketError(500, "no_gpu", NO_GPU)
                gpus = 0 if self._books.holds.holds(instance.id, Held.ZERO_GPU) else pod.gpu_count
                terms = replace(pod, gpus=gpus, started_at=now)
                # The public ports of a pod are others after each start.
                ports = self._books.free_ports(_RUNTYPE)
                mapped = self._books.map_ports(instance.mapped, ports)
                changed = replace(instance, pod=terms, base_price=terms.compute_rate, ports=ports, mapped=mapped)
                self._books.put(changed)
        self._market.contracts.start(instance.id)
        return self._row(self._pod(call), call)

    def stop(self, call: Call) -> dict[str, Any]:
        self._market.contracts.stop(self._live(call).id)
        return self._row(self._pod(call), call)

    def restart(self, call: Call) -> dict[str, Any]:
        self._market.contracts.restart(self._live(call).id, Phase.REBOOTING)
        return self._row(self._pod(call), call)

    def terminate(self, call: Call) -> None:
        instance = self._live(call)
        self._market.contracts.destroy(instance.id)
        own = own_volume(self._books.directory.volumes, instance.id)
        if own.exists():
            delete_tree(own)

    def _contract(self, order: PodOrder, machine: Machine, terms: PodTerms) -> Order:
        return Order(
            machine.offer_id,
            order.image,
            _RUNTYPE,
            float(order.volume_gb),
            label=order.name,
            env=order.env,
            onstart=order.command or None,
            pod=terms,
        )

    def _machines(self, order: PodOrder, volume: Volume | None) -> list[Machine]:
        """Who could run it, in the order of the wanted cards, then by price."""
        places = (volume.data_center,) if volume is not None else order.data_centers
        with self._books.reading() as (state, _now):
            taken = {one.machine_id for one in state.instances.values() if one.live}
        fitting = [
            machine
            for machine in self._books.machines
            if machine.machine_id not in taken
            and machine.num_gpus >= order.gpu_count
            and (not order.gpu_types or GPU_TYPES[machine.model.name] in order.gpu_types)
            and (not places or DATA_CENTERS[machine.geolocation] in places)
            and (not order.cuda_versions or f"{machine.cuda:.1f}" in order.cuda_versions)
            and (machine.hosting_type == 1) is (order.cloud_type == "SECURE")
        ]
        return sorted(fitting, key=lambda one: (_place_in(order, one), one.price / one.num_gpus, one.machine_id))

    def _row(self, instance: Instance, call: Call) -> dict[str, Any]:
        books = self._books
        pod, machine = _terms(instance), books.machine(instance.machine_id)
        reachable = instance.phase is Phase.RUNNING and books.holds.unheard_as(instance.id) is None
        volume = books.state.volumes.get(pod.network_volume)
        asked = [call.query.get(name, "").lower() for name in ("includeMachine", "includeNetworkVolume")]
        row = pod_row(instance, pod, machine, volume, reachable, whole="true" in asked)
        if instance.phase is Phase.UNLOADED and books.holds.holds(instance.id, Held.ONLY_LISTED):
            return {**row, "desiredStatus": "RUNNING"}  # a list that lags behind shows it as it ran
        return row

    def _pod(self, call: Call) -> Instance:
        with self._books.reading() as (state, _now):
            found = state.instances.get(number_of(call.parameters["pod"]))
        if found is None or found.pod is None or found.phase is Phase.GONE:
            raise self._missing(call)
        return found

    def _live(self, call: Call) -> Instance:
        found = self._pod(call)
        if not found.live:
            raise self._missing(call)
        return found

    def _missing(self, call: Call) -> MarketError:
        return MarketError(404, "not_found", f"pod {call.parameters['pod']!r} not found")

    # --- network volumes ----------------------------------------------------------------------------------------

    def list_volumes(self, _call: Call) -> list[dict[str, Any]]:
        with self._books.reading() as (state, _now):
            return [volume_row(one) for one in state.volumes.values() if one.live and one.data_center]

    def show_volume(self, call: Call) -> dict[str, Any]:
        return volume_row(self._volume(number_of(call.parameters["volume"])))

    def create_volume(self, call: Call) -> dict[str, Any]:
        order = volume_order(call.body)
        if order.data_center not in DATA_CENTERS.values():
            raise bad(f"dataCenterId: one of {', '.join(sorted(set(DATA_CENTERS.values())))}")
        rate = network_volume_rate(order.size_gb)
        with self._books.changing() as (state, now):
            self._books.check_credit()
            made = Volume(
                state.take_id(), 0, order.size_gb, rate, now, name=order.name, data_center=order.data_center
            )  # fmt: skip
            state.volumes[made.id] = made
        self._folder(made).mkdir(parents=True, exist_ok=True)
        return volume_row(made)

    def delete_volume(self, call: Call) -> None:
        volume = self._volume(number_of(call.parameters["volume"]))
        with self._books.changing() as (state, now):
            pods = [one for one in state.instances.values() if one.live and one.pod is not None]
            if any(one.pod is not None and one.pod.network_volume == volume.id for one in pods):
                raise bad("the network volume is attached to a pod; terminate the pod first")
            state.volumes[volume.id] = volume.deleted(now)
        delete_tree(self._folder(volume))

    def _volume(self, number: int) -> Volume:
        found = self._books.state.volumes.get(number)
        if found is None or not found.live or not found.data_center:
            raise MarketError(404, "not_found", "network volume not found")
        return found

    def _folder(self, volume: Volume) -> Path:
        return self._books.directory.volumes / str(volume.id)


def _place_in(order: PodOrder, machine: Machine) -> int:
    """Where the machine's card stands among the wanted ones."""
    name = GPU_TYPES[machine.model.name]
    return order.gpu_types.index(name) if name in order.gpu_types else len(order.gpu_types)


def _terms_of(order: PodOrder, machine: Machine, now: float) -> PodTerms:
    return PodTerms(
        name=order.name,
        gpu_type=GPU_TYPES[machine.model.name],
        gpu_count=order.gpu_count,
        gpus=order.gpu_count,
        gpu_price=round(machine.price / machine.num_gpus, 6),
        container_gb=order.container_gb,
        volume_gb=order.volume_gb,
        mount_path=order.mount_path,
        cloud_type=order.cloud_type,
        data_center=DATA_CENTERS[machine.geolocation],
        ports=order.ports,
        network_volume=order.network_volume,
        public_ip=order.public_ip,
        started_at=now,
    )


def _terms(instance: Instance) -> PodTerms:
    """The terms of an instance that was found as a pod."""
    if instance.pod is None:
        raise MarketError(404, "not_found", "pod not found")
    return instance.pod
