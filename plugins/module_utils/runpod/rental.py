# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Renting a pod: never twice, never lost, never above the cap.

RunPod has no offers to choose from: a create names cards, places and sizes, and the provider picks the machine. The
REST API tells no price before, so that the price of the new pod is compared with the cap, and a dearer one is given
back: it is virgin, nothing was ever put on it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any, Mapping, Sequence

from .. import approvals
from ..budget import budget_problem
from ..creation import carried_problem
from ..dollar_budgets import NO_BUDGETS, Budgets
from ..failures import TenantFailure
from ..named_rental import NamedRental
from ..rental_states import Result
from ..rest_client import RestError
from ..stamp import ENVIRONMENT_NAME, Stamp
from .actions import PodAccount
from .dead_man import Switch, as_moment
from .launch_consent import approval_for, identity_of
from .transformations import SSH_PORT, Pod, lies_below

LEAST_STOP_S = 600
ON_DEMAND, INTERRUPTIBLE = "on-demand", "interruptible"
MARKETS = (ON_DEMAND, INTERRUPTIBLE)
_PORT = re.compile(r"([1-9][0-9]{0,4})/(http|tcp)\Z")


@dataclass(frozen=True)
class PodOrder:
    """What to rent. Sizes in GB; ``gpu_types`` are tried in their order.

    :param budget_per_hour: the most that all of the project may cost an hour together; None for no limit.
    :param budgets: what the run and the project may cost in all.
    :param price_cap: the most that an hour may cost, compute and disks together, in dollars.
    :param market: one of :data:`MARKETS`; interruptible is what RunPod calls spot.
    :param network_volume: the id of one to mount in place of a volume disk; empty for none.
    :param stop_after_s: after how many seconds RunPod itself stops it; 0 for never.
    :param terminate_after_s: after how many seconds RunPod itself terminates it, if a person consented; 0 for never.
    :param ports: beside ssh's, as ``8888/http``.
    """

    project: str
    name: str
    image: str = ""
    gpu_types: Sequence[str] = ()
    gpu_count: int = 1
    cloud_type: str = "SECURE"
    container_gb: int = 20
    volume_gb: int = 20
    mount_path: str = "/workspace"
    network_volume: str = ""
    ports: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    data_centers: Sequence[str] = ()
    cuda_versions: Sequence[str] = ()
    start_command: Sequence[str] = ()
    market: str = ON_DEMAND
    stop_after_s: int = 0
    terminate_after_s: int = 0
    price_cap: float | None = None
    budget_per_hour: float | None = None
    budgets: Budgets = NO_BUDGETS
    wait_s: float = 900.0


def order_problem(order: PodOrder, key: str) -> str:
    """Why the API would refuse an order, or why it may not be sent: it would carry the account's key to a stranger."""
    if not order.image or not order.gpu_types:
        return "image and gpu_types say what to rent, and one of them is missing"
    if order.price_cap is None or not 0 < order.price_cap < float("inf"):
        return f"price_cap is {order.price_cap}: renting without one above 0 is not consented to"
    if budget_problem(order.budget_per_hour):
        return budget_problem(order.budget_per_hour)
    if order.gpu_count < 1 or order.container_gb < 1 or order.volume_gb < 0:
        return "gpu_count and container_disk_gb must be 1 at least, volume_gb 0"
    if not order.volume_gb and not order.network_volume:
        return "without volume_gb or network_volume everything on the pod is wiped by a stop"
    wrong = [port for port in order.ports if not _PORT.match(port)]
    if wrong or len({port.split("/")[0] for port in order.ports}) < len(order.ports):
        return f"ports are such as 8888/http or 8000/tcp, each number once: {', '.join(wrong or order.ports)}"
    return carried_problem(key, order.env, (order.image, *order.start_command), "image, start_command")


def switch_problem(order: PodOrder, data_dir: str) -> str:
    """Why RunPod may not act on a pod by itself: results would be lost without the gate, or it comes too soon."""
    least = max(LEAST_STOP_S, order.stop_after_s + 1)
    if order.terminate_after_s and order.terminate_after_s < least:
        return f"terminate_after_s is {order.terminate_after_s}: below {least} s it would come before anything else"
    if not order.stop_after_s:
        return ""
    if order.stop_after_s < LEAST_STOP_S:
        return f"stop_after_s is {order.stop_after_s}: a stop within {LEAST_STOP_S} s would come before anything trains"
    if not lies_below(data_dir, order.mount_path):
        return (
            f"stop_after_s is set and {data_dir or 'no data_dir'} is not below {order.mount_path}: a stop that nobody "
            "decides on would wipe the results"
        )
    return ""


def refuse_without_spot(account: PodAccount, order: PodOrder) -> None:
    """TenantFailure where a spot pod is wanted and the API has none: nothing else is rented in its place."""
    if order.market != INTERRUPTIBLE:
        return
    what, fix = "", "rent on demand (market: on-demand)"
    if order.stop_after_s or order.terminate_after_s:
        name = "stop_after_s" if order.stop_after_s else "terminate_after_s"
        what = f"market is interruptible and {name} is set: RunPod takes such a moment for pods on demand only"
        fix += f", or leave {name} out"
    elif not account.client.api.HAS_SPOT:
        what = (
            f"market is interruptible, and this version of RunPod's REST ({account.client.base_url}) has no spot pods"
        )
        fix += ", or name version 1 (api_url: https://rest.runpod.io/v1) for as long as RunPod serves it"
    if what:
        raise TenantFailure("config", what, box=order.name, safe="nothing was rented", fix=fix)


def create_body(order: PodOrder, stamp: Stamp) -> dict[str, Any]:
    """The create, stamp in name and environment."""
    body: dict[str, Any] = {
        "name": str(stamp),
        "imageName": order.image,
        "computeType": "GPU",
        "cloudType": order.cloud_type,
        "supportPublicIp": True,
        "gpuTypeIds": list(order.gpu_types),
        "gpuTypePriority": "custom",
        "gpuCount": order.gpu_count,
        "containerDiskInGb": order.container_gb,
        "volumeMountPath": order.mount_path,
        "ports": [SSH_PORT, *(port for port in order.ports if port != SSH_PORT)],
        "env": {**order.env, ENVIRONMENT_NAME: str(stamp)},
        "interruptible": order.market == INTERRUPTIBLE,
    }
    # A network volume takes the place of the volume disk.
    body.update(
        {"networkVolumeId": order.network_volume} if order.network_volume else {"volumeInGb": order.volume_gb}
    )  # fmt: skip
    listed = {
        "dataCenterIds": order.data_centers,
        "allowedCudaVersions": order.cuda_versions,
        "dockerStartCmd": order.start_command,
    }
    return {**body, **{name: list(value) for name, value in listed.items() if value}}


class PodRental(NamedRental[Pod]):
    """One order of a pod."""

    MOST_NAME = 191
    PRICED = "an hour, disks included"
    SOLD_OUT = "name more gpu_types or data_centers, or try again later"
    TOO_DEAR = "raise price_cap, or name other gpu_types"
    TRY_ELSEWHERE = "run again, or name other data_centers"

    def __init__(self, account: PodAccount, order: PodOrder) -> None:
        super().__init__(account, order)
        self._pods = account
        self._wanted = order

    def send(self, stamp: Stamp) -> str:
        body, client = create_body(self._wanted, stamp), self._pods.client
        switch = self._switch(stamp)
        if switch is None:
            return client.create_pod(body)
        if switch.end_at is None:
            return client.create_pod(body, switch)
        consent = self._consent(stamp.generation)
        with approvals.spending(self._pods.store, str(consent["id"])):
            return client.create_pod(body, switch)

    def _switch(self, stamp: Stamp) -> Switch | None:
        """What RunPod is to do by itself, noted before the pod can exist: one whose answer is lost has it as well."""
        order = self._wanted
        if not order.stop_after_s and not order.terminate_after_s:
            return None
        now = self._pods.client.provider_now()
        if now is None:
            raise RestError(
                "RunPod tells no time, so that no moment for it to act can be said", safe="nothing was sent"
            )
        found = Switch(
            *(now + seconds if seconds else None for seconds in (order.stop_after_s, order.terminate_after_s))
        )
        moments = {"stops_at": found.stop_at, "terminates_at": found.end_at}
        told = {name: as_moment(at) for name, at in moments.items() if at is not None}
        self._pods.store.update_box(stamp.project, stamp.box, stamp.generation, **told)
        return found

    def _consent(self, generation: int) -> dict[str, Any]:
        order = self._wanted
        identity = identity_of(order.project, order.name, generation)
        return approval_for(self._pods.store, identity, order.terminate_after_s)

    def stamp_of(self, generation: int) -> Stamp:
        """As the base class; what nobody consented to is refused before there is a record of the generation."""
        if self._wanted.terminate_after_s:
            self._consent(generation)
        return super().stamp_of(generation)

    def predict(self, result: Result[Pod]) -> None:
        super().predict(result)
        if self._wanted.terminate_after_s and result.predicted is not None:
            self._consent(int(result.predicted["generation"]))

    @property
    def market(self) -> str:
        return self._wanted.market

    def terms(self) -> dict[str, Any]:
        order = self._wanted
        switches = {"stop_after_s": order.stop_after_s, "terminate_after_s": order.terminate_after_s}
        told = {name: seconds for name, seconds in switches.items() if seconds}
        return {"gpu_types": list(order.gpu_types), "market": order.market, **told}

    def checked(self, box: Pod) -> Pod:
        """Version 2 of the API takes data centers for a wish, so that where the pod is has to be looked at."""
        places = self._wanted.data_centers
        if places and box.data_center and box.data_center not in places:
            raise self._pods.stuck(box, f"it is in {box.data_center}, and {', '.join(places)} was asked for")
        return self._pods.check_gpus(box, self._wanted.gpu_count)


def in_data_center(account: PodAccount, order: PodOrder) -> PodOrder:
    """The order, kept to where its network volume is. TenantFailure where there is no such volume, or it is elsewhere.

    A pod can only be where its volume is, and the volume is attached when the pod is rented or never.
    """
    if not order.network_volume:
        return order
    rows = account.client.list_volumes()
    place = next((row.get("dataCenterId") for row in rows if row["id"] == order.network_volume), None)
    if not isinstance(place, str):
        raise TenantFailure(
            "config",
            f"the account has no network volume {ascii(order.network_volume)[:60]}",
            box=order.name,
            safe="nothing was rented",
            fix="take the id of one that runpod_network_volume_info lists, or make one with runpod_network_volume",
        )
    if order.data_centers and place not in order.data_centers:
        raise TenantFailure(
            "config",
            f"network volume {order.network_volume} is in {place}, which data_centers does not name",
            box=order.name,
            safe="nothing was rented",
            fix=f"leave data_centers out, or name {place}: a volume never leaves its data center",
        )
    return replace(order, data_centers=(place,))
