# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a tenant of RunPod's does with pods and network volumes, in whichever of its APIs he asks.

Time and money are the market's: a pod is a contract on one of its machines, which nobody else can have meanwhile. That
no GPU is left is said in the words of the older API (runpod-python #21, #168), and so is a resume whose host has no
GPU free.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from pathlib import Path

from ..contracts import Order
from ..engines.control import delete_tree
from ..holds import Held
from ..instances import Instance, Phase
from ..market import Market
from ..offers import Machine
from ..refusals import MarketError
from ..volumes import Volume
from .orders import PodOrder, VolumeOrder, bad
from .pods import DATA_CENTERS, GPU_TYPES, own_volume
from .terms import PodTerms, network_volume_rate

NO_MACHINE = (
    "There are no longer any instances available with the requested specifications. Please refresh and try again."
)
NO_GPU = "There are not enough free GPUs on the host machine to start this pod."
# The kind of box that the engines know as one reached by its own sshd.
_RUNTYPE = "ssh_direc"


@dataclass(frozen=True)
class Seen:
    """A pod with what its rows are made of.

    :param reachable: whether its container runs and its host is heard.
    :param is_shown_alive: it is gone, and a list that lags behind still shows it as it ran.
    """

    instance: Instance
    terms: PodTerms
    machine: Machine
    volume: Volume | None
    reachable: bool
    uptime_s: float
    is_shown_alive: bool


class PodDesk:
    def __init__(self, market: Market, api_key: str) -> None:
        self._market = market
        self._books = market.books
        self._api_key = api_key

    def authorize(self, token: str | None) -> None:
        """MarketError (401) for another key."""
        if token is None or not secrets.compare_digest(token.encode(), self._api_key.encode()):
            raise MarketError(401, "unauthorized", "Unauthorized request, please check your API key.")

    # --- pods ---------------------------------------------------------------------------------------------------

    def pods(self) -> list[Seen]:
        with self._books.reading() as (state, _now):
            found = [one for one in state.instances.values() if one.pod is not None and one.phase is not Phase.GONE]
        return [self._seen(one) for one in sorted(found, key=lambda one: one.id)]

    def pod(self, number: int) -> Seen:
        """MarketError (404) where there is none, or only a list still shows it."""
        found = self._seen(self._there(number))
        if found.is_shown_alive:
            raise missing_pod()
        return found

    def rent(self, order: PodOrder) -> Seen:
        volume = self.volume(order.network_volume) if order.network_volume else None
        if order.volume_gb or volume is not None:
            self._market.boxes.check_volumes()
        for machine in self._machines(order, volume):
            price = self._books.floor(machine) if order.interruptible else machine.price
            terms = _terms_of(order, machine, price, self._books.clock.now())
            try:
                return self._seen(self._market.contracts.rent(self._contract(order, machine, terms)))
            except MarketError as refusal:
                if refusal.code == "invalid_args":
                    continue  # taken meanwhile, or too small
                raise
        raise MarketError(500, "no_instances", NO_MACHINE)

    def start(self, number: int) -> Seen:
        instance = self._there(number)
        pod = _terms(instance)
        machine = self._books.machine(instance.machine_id)
        with self._books.changing() as (_state, now):
            if instance.phase in (Phase.STOPPED, Phase.OUTBID, Phase.SCHEDULING):
                if any(one.live and one.wants_card and one is not instance for one in self._books.tenants(machine)):
                    raise MarketError(500, "no_gpu", NO_GPU)
                if instance.price is not None and instance.price < self._books.floor(machine):
                    raise MarketError(500, "no_gpu", NO_GPU)
                gpus = 0 if self._books.holds.holds(instance.id, Held.ZERO_GPU) else pod.gpu_count
                terms = replace(pod, gpus=gpus, started_at=now)
                # The public ports of a pod are others after each start.
                ports = self._books.free_ports(_RUNTYPE)
                mapped = self._books.map_ports(instance.mapped, ports)
                changed = replace(instance, pod=terms, base_price=terms.compute_rate, ports=ports, mapped=mapped)
                self._books.put(changed)
        self._market.contracts.start(number)
        return self._seen(self._there(number))

    def stop(self, number: int) -> Seen:
        self._market.contracts.stop(self._live(number).id)
        return self._seen(self._there(number))

    def restart(self, number: int) -> Seen:
        self._market.contracts.restart(self._live(number).id, Phase.REBOOTING)
        return self._seen(self._there(number))

    def terminate(self, number: int) -> None:
        instance = self._live(number)
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
            # RunPod's tenants of spot say no bid: the market's price as it is now stands for theirs.
            self._books.floor(machine) if order.interruptible else None,
            label=order.name,
            env=order.env,
            onstart=order.command or None,
            pod=terms,
        )

    def free_machines(self) -> list[Machine]:
        with self._books.reading() as (state, _now):
            taken = {one.machine_id for one in state.instances.values() if one.live}
        return [machine for machine in self._books.machines if machine.machine_id not in taken]

    def machines(self) -> list[Machine]:
        return list(self._books.machines)

    def _machines(self, order: PodOrder, volume: Volume | None) -> list[Machine]:
        """Who could run it, in the order of the wanted cards, then by price."""
        places = (volume.data_center,) if volume is not None else order.data_centers
        fitting = [
            machine
            for machine in self.free_machines()
            if machine.num_gpus >= order.gpu_count
            and (not order.gpu_types or GPU_TYPES[machine.model.name] in order.gpu_types)
            and (not places or DATA_CENTERS[machine.geolocation] in places)
            and (not order.cuda_versions or f"{machine.cuda:.1f}" in order.cuda_versions)
            and order.cloud_type in ("ALL", cloud_of(machine))
        ]
        return sorted(fitting, key=lambda one: (_place_in(order, one), one.price / one.num_gpus, one.machine_id))

    def _seen(self, instance: Instance) -> Seen:
        books, pod = self._books, _terms(instance)
        return Seen(
            instance,
            pod,
            books.machine(instance.machine_id),
            books.state.volumes.get(pod.network_volume),
            reachable=instance.phase is Phase.RUNNING and books.holds.unheard_as(instance.id) is None,
            uptime_s=books.clock.now() - pod.started_at,
            is_shown_alive=instance.phase is Phase.UNLOADED and books.holds.holds(instance.id, Held.ONLY_LISTED),
        )

    def _there(self, number: int) -> Instance:
        with self._books.reading() as (state, _now):
            found = state.instances.get(number)
        if found is None or found.pod is None or found.phase is Phase.GONE:
            raise missing_pod()
        return found

    def _live(self, number: int) -> Instance:
        found = self._there(number)
        if not found.live:
            raise missing_pod()
        return found

    # --- network volumes ----------------------------------------------------------------------------------------

    def volumes(self) -> list[Volume]:
        with self._books.reading() as (state, _now):
            return [one for one in state.volumes.values() if one.live and one.data_center]

    def volume(self, number: int) -> Volume:
        """MarketError (404) where there is none."""
        found = self._books.state.volumes.get(number)
        if found is None or not found.live or not found.data_center:
            raise MarketError(404, "not_found", "network volume not found")
        return found

    def make_volume(self, order: VolumeOrder) -> Volume:
        if order.data_center not in DATA_CENTERS.values():
            raise bad(f"the data center is one of {', '.join(sorted(set(DATA_CENTERS.values())))}")
        rate = network_volume_rate(order.size_gb)
        with self._books.changing() as (state, now):
            self._books.check_credit()
            made = Volume(
                state.take_id(), 0, order.size_gb, rate, now, name=order.name, data_center=order.data_center
            )  # fmt: skip
            state.volumes[made.id] = made
        self._folder(made).mkdir(parents=True, exist_ok=True)
        return made

    def delete_volume(self, number: int) -> None:
        volume = self.volume(number)
        with self._books.changing() as (state, now):
            pods = [one for one in state.instances.values() if one.live and one.pod is not None]
            if any(one.pod is not None and one.pod.network_volume == volume.id for one in pods):
                raise bad("the network volume is attached to a pod; terminate the pod first")
            state.volumes[volume.id] = volume.deleted(now)
        delete_tree(self._folder(volume))

    def _folder(self, volume: Volume) -> Path:
        return self._books.directory.volumes / str(volume.id)

    # --- the account --------------------------------------------------------------------------------------------

    def public_keys(self) -> str:
        """One a line, as RunPod holds them."""
        return "\n".join(key.public_key for key in self._market.ssh_keys.of_account())

    def set_public_keys(self, text: str) -> None:
        """In place of those that the account has."""
        keys = self._market.ssh_keys
        for old in keys.of_account():
            keys.delete(old.id)
        for line in filter(None, map(str.strip, text.splitlines())):
            keys.add(line)

    def balance(self) -> float:
        return round(self._market.money.credit(), 6)


def missing_pod() -> MarketError:
    return MarketError(404, "not_found", "pod not found")


def cloud_of(machine: Machine) -> str:
    return "SECURE" if machine.hosting_type == 1 else "COMMUNITY"


def _place_in(order: PodOrder, machine: Machine) -> int:
    """Where the machine's card stands among the wanted ones."""
    name = GPU_TYPES[machine.model.name]
    return order.gpu_types.index(name) if name in order.gpu_types else len(order.gpu_types)


def _terms_of(order: PodOrder, machine: Machine, price: float, now: float) -> PodTerms:
    return PodTerms(
        name=order.name,
        gpu_type=GPU_TYPES[machine.model.name],
        gpu_count=order.gpu_count,
        gpus=order.gpu_count,
        gpu_price=round(price / machine.num_gpus, 6),
        container_gb=order.container_gb,
        volume_gb=order.volume_gb,
        mount_path=order.mount_path,
        cloud_type=cloud_of(machine),
        data_center=DATA_CENTERS[machine.geolocation],
        ports=order.ports,
        network_volume=order.network_volume,
        public_ip=order.public_ip,
        started_at=now,
        interruptible=order.interruptible,
        stop_after=order.stop_after,
        terminate_after=order.terminate_after,
    )


def _terms(instance: Instance) -> PodTerms:
    """The terms of an instance that was found as a pod."""
    if instance.pod is None:
        raise MarketError(404, "not_found", "pod not found")
    return instance.pod
