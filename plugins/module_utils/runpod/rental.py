# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Renting a pod: never twice, never lost, never above the cap.

RunPod has no offers to choose from: a create names cards, places and sizes, and the provider picks the machine. The
REST API tells no price before, so that the price of the new pod is compared with the cap, and a dearer one is given
back: it is virgin, nothing was ever put on it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence

from ..creation import Creation, carried_problem
from ..failures import TenantFailure
from ..rest_client import AmbiguousAnswer, RestError
from ..stamp import ENVIRONMENT_NAME, Stamp, new_stamp
from .actions import PLATFORM, PodAccount
from .transformations import SSH_PORT, Pod

MOST_NAME = 191
_PORT = re.compile(r"([1-9][0-9]{0,4})/(http|tcp)\Z")


@dataclass(frozen=True)
class PodOrder:
    """What to rent. Sizes in GB; ``gpu_types`` are tried in their order.

    :param price_cap: the most that an hour may cost, compute and disks together, in dollars.
    :param network_volume: the id of one to mount in place of a volume disk; empty for none.
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
    price_cap: float | None = None
    wait_s: float = 900.0


def order_problem(order: PodOrder, key: str) -> str:
    """Why the API would refuse an order, or why it may not be sent: it would carry the account's key to a stranger."""
    if not order.image or not order.gpu_types:
        return "image and gpu_types say what to rent, and one of them is missing"
    if order.price_cap is None or not 0 < order.price_cap < float("inf"):
        return f"price_cap is {order.price_cap}: renting without one above 0 is not consented to"
    if order.gpu_count < 1 or order.container_gb < 1 or order.volume_gb < 0:
        return "gpu_count and container_disk_gb must be 1 at least, volume_gb 0"
    if not order.volume_gb and not order.network_volume:
        return "without volume_gb or network_volume everything on the pod is wiped by a stop"
    wrong = [port for port in order.ports if not _PORT.match(port)]
    if wrong or len({port.split("/")[0] for port in order.ports}) < len(order.ports):
        return f"ports are such as 8888/http or 8000/tcp, each number once: {', '.join(wrong or order.ports)}"
    return carried_problem(key, order.env, (order.image, *order.start_command), "image, start_command")


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
        "interruptible": False,
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


def rent(account: PodAccount, order: PodOrder) -> tuple[Pod, bool]:
    """A pod that runs, and whether this call rented it. TenantFailure when none came of it; then nothing is left."""
    pod, is_new = _created(account, order)
    if not is_new:
        return account.await_running(pod, order.wait_s), False
    return _admitted(account, order, pod), True


def _created(account: PodAccount, order: PodOrder) -> tuple[Pod, bool]:
    """Alone on the account while it lasts, so that no two processes send a create for one name."""
    with account.lock():
        found = account.locate(order.project, order.name)
        if isinstance(found.current, Pod):
            return found.current, False  # another process rented it while we waited for the lock
        last = max(found.last_generation, account.store.last_generation(order.project, order.name))
        stamp = new_stamp(order.project, order.name, 1 + last)
        if len(str(stamp)) > MOST_NAME:
            raise TenantFailure("config", f"project and name are too long for a pod's name: {stamp}", box=order.name)
        account.check_lease(order.project, order.name)
        creation = Creation(account, stamp)
        creation.intend(market="on-demand")
        terms = {"stamp": str(stamp), "gpu_types": list(order.gpu_types), "price_cap": order.price_cap}
        place = {"project": stamp.project, "box": stamp.box, "generation": stamp.generation}
        with account.journal.effect("rent", **place, platform=PLATFORM, **terms) as effect:
            effect.details["provider_id"] = pod_id = _sent(account, order, creation)
        return creation.confirmed(pod_id), True


def _sent(account: PodAccount, order: PodOrder, creation: Creation[Pod]) -> str:
    """The new pod's id. TenantFailure when certainly none was made, or when nothing is certain."""
    try:
        return str(account.client.create_pod(create_body(order, creation.stamp)))
    except AmbiguousAnswer as lost:
        found = creation.look_up(lost)
        if found:
            return found
        if lost.code == "no_capacity":
            creation.forget()
            raise _nothing_rented(order, lost.what, "no_offer") from None
        # Its record stays: a pod that surfaces later all the same is ours, and virgin.
        raise _nothing_rented(order, f"{lost.what}; no pod with its stamp came of it", "provider") from None
    except RestError as refusal:
        creation.forget()
        kind = "no_offer" if refusal.code == "no_capacity" else refusal.kind
        raise _nothing_rented(order, refusal.what, kind, refusal.fix) from None


def _admitted(account: PodAccount, order: PodOrder, pod: Pod) -> Pod:
    """The new pod once it runs within the cap. One that does not is terminated, and the failure says why."""
    # A pod that is being made may have no price yet.
    price_problem = "" if pod.dph_total is None else _price_problem(pod, order)
    try:
        if not price_problem:
            running = account.check_gpus(account.await_running(pod, order.wait_s), order.gpu_count)
            price_problem = _price_problem(running, order)
            if not price_problem:
                if running.stamp is not None:
                    Creation(account, running.stamp).note(machine_id=running.machine, price_per_hour=running.dph_total)
                return running
        reason = price_problem
    except RestError as error:
        raise TenantFailure(
            "provider",
            error.what,
            box=order.name,
            safe=f"pod {pod.provider_id} is rented, recorded and kept",
            fix="run again: it is found by its stamp",
        ) from None
    except TenantFailure as stuck:
        reason = stuck.what
    account.destroy(pod, why=reason)
    if pod.stamp is not None:
        Creation(account, pod.stamp).note(rejected={"reason": reason})
    fix = "raise price_cap, or name other gpu_types" if price_problem else "run again, or name other data_centers"
    raise TenantFailure(
        "no_offer", f"the new pod was given back: {reason}", box=order.name, safe="nothing of it is left", fix=fix
    )


def _price_problem(pod: Pod, order: PodOrder) -> str:
    if pod.dph_total is None:
        return f"the provider does not say what pod {pod.provider_id} costs"
    if order.price_cap is not None and pod.dph_total > order.price_cap + 1e-6:
        return f"it costs ${pod.dph_total:.4f} an hour, disks included, above the price_cap of ${order.price_cap}"
    return ""


def _nothing_rented(order: PodOrder, what: str, kind: str, fix: str = "") -> TenantFailure:
    words = "name more gpu_types or data_centers, or try again later" if kind == "no_offer" else "run again"
    return TenantFailure(kind, what, box=order.name, safe="nothing was rented", fix=fix or words)
