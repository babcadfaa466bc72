# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Pods as rows, and what their boxes see: pure.

The fields are those of the schema ``Pod`` in RunPod's OpenAPI (rest.runpod.io/v1/openapi.json; runpod/docs
``api-reference/openapi.json``, 2026). ``costPerHr`` is compute alone there; the disks are on the bill.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..offers import Machine
from ..volumes import Volume
from .terms import PodTerms, pod_id, volume_id

if TYPE_CHECKING:
    from ..instances import Instance

LOOPBACK = "127.0.0.1"
# What the image runs where no command is given; elsewhere than its name says where boxes have no root of their own.
IMAGE_START = '"${IMAGE_START-/start.sh}"'
# RunPod's names of the catalogue's cards, as its schema lists them.
GPU_TYPES = {
    "RTX 3060": "NVIDIA GeForce RTX 3060",
    "RTX 3090": "NVIDIA GeForce RTX 3090",
    "RTX 4090": "NVIDIA GeForce RTX 4090",
    "RTX 5090": "NVIDIA GeForce RTX 5090",
    "RTX A6000": "NVIDIA RTX A6000",
    "L40S": "NVIDIA L40S",
    "A100 SXM4": "NVIDIA A100-SXM4-80GB",
    "H100 SXM": "NVIDIA H100 80GB HBM3",
}
# The data center of RunPod that stands for each place of the catalogue.
DATA_CENTERS = {
    "Sweden, SE": "EU-SE-1", "Norway, NO": "EUR-NO-1", "Germany, DE": "EU-NL-1", "Bulgaria, BG": "EU-RO-1",
    "Czechia, CZ": "EU-CZ-1", "Spain, ES": "EU-FR-1", "Texas, US": "US-TX-3", "Utah, US": "US-WA-1",
    "California, US": "US-CA-2", "Quebec, CA": "CA-MTL-1", "Taiwan, TW": "AP-JP-1", "Japan, JP": "AP-JP-1",
    "South Korea, KR": "AP-JP-1", "Australia, AU": "OC-AU-1",
}  # fmt: skip
_DESIRED = {"stopped": "EXITED", "outbid": "EXITED", "scheduling": "EXITED", "unloaded": "TERMINATED"}
_HAPPENED = {"EXITED": "Exited by user", "RUNNING": "Rented by User", "TERMINATED": "Terminated by user"}


def _happened(instance: Instance) -> str:
    return "Exited by Runpod" if instance.phase.value == "outbid" else _HAPPENED[desired_status(instance)]


def desired_status(instance: Instance) -> str:
    return _DESIRED.get(instance.phase.value, "RUNNING")


def pod_row(
    instance: Instance, pod: PodTerms, machine: Machine, volume: Volume | None, reachable: bool, whole: bool
) -> dict[str, Any]:
    """:param reachable: whether its container runs and its host is heard.
    :param whole: with what has to be asked for: the machine and the network volume.
    """
    status = desired_status(instance)
    row = {
        "id": pod_id(instance.id),
        "name": pod.name,
        "image": instance.image,
        "env": dict(instance.env),
        "desiredStatus": status,
        "lastStatusChange": f"{_happened(instance)}: {utc(pod.started_at or instance.created_at)}",
        "lastStartedAt": utc(pod.started_at or instance.created_at),
        "costPerHr": pod.compute_rate,
        "adjustedCostPerHr": pod.compute_rate,
        "gpu": {"id": pod.gpu_type, "count": pod.gpus, "displayName": machine.model.name},
        "interruptible": pod.interruptible,
        "locked": False,
        "machineId": f"m{machine.machine_id}",
        "containerDiskInGb": pod.container_gb,
        "volumeInGb": pod.volume_gb,
        "volumeMountPath": pod.mount_path,
        "volumeEncrypted": False,
        "memoryInGb": machine.cpu_ram // 1000,
        "vcpuCount": machine.cpu_cores,
        "ports": list(pod.ports),
        "publicIp": LOOPBACK if reachable and pod.public_ip else "",
        "portMappings": _mappings(instance, pod) if reachable and pod.public_ip else {},
        "templateId": None,
        "endpointId": None,
    }
    if not whole:
        return row
    place = {"gpuTypeId": pod.gpu_type, "dataCenterId": pod.data_center, "secureCloud": pod.cloud_type == "SECURE"}
    return {**row, "machine": place, "networkVolume": None if volume is None else volume_row(volume)}


def volume_row(volume: Volume) -> dict[str, Any]:
    size = int(volume.size_gb)
    return {"id": volume_id(volume.id), "name": volume.name, "size": size, "dataCenterId": volume.data_center}


def environment(instance: Instance, pod: PodTerms) -> dict[str, str]:
    """What RunPod puts into a pod's environment."""
    given = {
        "RUNPOD_POD_ID": pod_id(instance.id),
        "RUNPOD_GPU_COUNT": str(pod.gpus),
        "RUNPOD_DC_ID": pod.data_center,
        "RUNPOD_PUBLIC_IP": LOOPBACK if pod.public_ip else "",
    }
    given.update({f"RUNPOD_TCP_PORT_{port}": str(public) for port, public in _mappings(instance, pod).items()})
    if pod.network_volume:
        given["RUNPOD_VOLUME_ID"] = volume_id(pod.network_volume)
    return given


def mounted(instance: Instance, pod: PodTerms, folder: Path) -> tuple[tuple[Path, str], ...]:
    """The volume that outlives the pod's container, and where it sees it."""
    if pod.network_volume:
        return ((folder / str(pod.network_volume), pod.mount_path),)
    return ((own_volume(folder, instance.id), pod.mount_path),) if pod.volume_gb else ()


def own_volume(folder: Path, number: int) -> Path:
    """Where the bytes of a pod's volume disk lie."""
    return folder / f"pod-{number}"


def own_keys(env: Mapping[str, str]) -> tuple[str, ...]:
    """The keys that RunPod's images let in: one a line of ``PUBLIC_KEY``."""
    return tuple(line.strip() for line in env.get("PUBLIC_KEY", "").splitlines() if line.strip())


def _mappings(instance: Instance, pod: PodTerms) -> dict[str, int]:
    ssh = {"22": instance.ports[0]} if pod.has_ssh else {}
    return {**ssh, **{name.split("/")[0]: port for name, port in instance.mapped.items()}}


def utc(moment: float) -> str:
    told = datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat(timespec="milliseconds")
    return told.replace("+00:00", "Z")
