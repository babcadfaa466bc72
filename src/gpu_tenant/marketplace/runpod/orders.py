# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a body that creates a pod or a network volume asks for, as RunPod's schema has it (``PodCreateInput``).

What is not simulated (templates, CPU pods, savings plans) is refused in words rather than ignored.
"""

from __future__ import annotations

import datetime
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..refusals import MarketError
from ..volumes import is_place
from .terms import number_of

MOST_NETWORK_GB = 4000
CLOUDS = ("SECURE", "COMMUNITY")
_PORT = re.compile(r"[1-9][0-9]{0,4}/(http|tcp)\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_TAKEN = frozenset({
    "name", "imageName", "gpuTypeIds", "gpuTypePriority", "gpuCount", "cloudType", "computeType", "containerDiskInGb",
    "volumeInGb", "volumeMountPath", "networkVolumeId", "ports", "env", "dataCenterIds", "dataCenterPriority",
    "allowedCudaVersions", "dockerStartCmd", "dockerEntrypoint", "interruptible", "supportPublicIp", "minRAMPerGPU",
    "minVCPUPerGPU", "locked",
})  # fmt: skip


@dataclass(frozen=True)
class PodOrder:
    """``gpu_types``, ``data_centers`` and ``cuda_versions`` are empty where any will do."""

    name: str
    image: str
    gpu_types: tuple[str, ...]
    gpu_count: int
    cloud_type: str
    container_gb: int
    volume_gb: int
    mount_path: str
    ports: tuple[str, ...]
    env: dict[str, str]
    data_centers: tuple[str, ...]
    cuda_versions: tuple[str, ...]
    network_volume: int
    public_ip: bool
    command: str
    interruptible: bool = False
    stop_after: float | None = None
    terminate_after: float | None = None


def pod_order(body: Mapping[str, Any]) -> PodOrder:
    """MarketError (400) that names the field."""
    for name in body:
        if name not in _TAKEN:
            raise bad(f"{name}: not simulated, or no field of a pod")
    if body.get("computeType", "GPU") != "GPU" or body.get("locked"):
        raise bad("computeType and locked: only GPU pods that are not locked are simulated")
    if not body.get("imageName"):
        raise bad("imageName: is required")
    volume = _text(body, "networkVolumeId", "")
    network_volume = number_of(volume) if volume else 0
    if volume and not network_volume:
        raise bad(f"networkVolumeId: there is no network volume {volume!r}")
    cloud = _text(body, "cloudType", "SECURE")
    if cloud not in CLOUDS:
        raise bad(f"cloudType: one of {', '.join(CLOUDS)}")
    return PodOrder(
        name=_text(body, "name", "my pod", most=191),
        image=_text(body, "imageName", ""),
        gpu_types=_texts(body, "gpuTypeIds"),
        gpu_count=_whole(body, "gpuCount", 1, least=1),
        cloud_type=cloud,
        container_gb=_whole(body, "containerDiskInGb", 50, least=1),
        # A network volume takes the place of the pod's own.
        volume_gb=0 if network_volume else _whole(body, "volumeInGb", 20),
        mount_path=_place(body),
        ports=_ports(body),
        env=_environment(body),
        data_centers=_texts(body, "dataCenterIds"),
        cuda_versions=_texts(body, "allowedCudaVersions"),
        network_volume=network_volume,
        public_ip=cloud == "SECURE" or bool(body.get("supportPublicIp")),
        command=shlex.join([*_texts(body, "dockerEntrypoint"), *_texts(body, "dockerStartCmd")]),
        interruptible=_flag(body, "interruptible"),
    )


@dataclass(frozen=True)
class VolumeOrder:
    name: str
    size_gb: int
    data_center: str


def volume_order(body: Mapping[str, Any]) -> VolumeOrder:
    """MarketError (400) that names the field."""
    for name in ("name", "size", "dataCenterId"):
        if not body.get(name):
            raise bad(f"{name}: is required")
    size = _whole(body, "size", 0, least=1)
    if size > MOST_NETWORK_GB:
        raise bad(f"size: at most {MOST_NETWORK_GB} GB")
    return VolumeOrder(_text(body, "name", ""), size, _text(body, "dataCenterId", ""))


def moment_in(name: str, given: object) -> float | None:
    """A moment of ISO 8601 as epoch seconds. MarketError (400) for any other text."""
    if given is None:
        return None
    try:
        moment = datetime.datetime.fromisoformat(str(given))
    except ValueError as reason:
        raise bad(f"{name}: must be a moment such as 2026-04-15T00:00:00Z") from reason
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()


def bad(message: str) -> MarketError:
    return MarketError(400, "invalid_input", message)


def _text(body: Mapping[str, Any], name: str, default: str, most: int = 1024) -> str:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, str) or len(value) > most:
        raise bad(f"{name}: must be text of at most {most} characters")
    return value


def _texts(body: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = body.get(name) or []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise bad(f"{name}: must be a list of texts")
    return tuple(value)


def _whole(body: Mapping[str, Any], name: str, default: int, least: int = 0) -> int:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise bad(f"{name}: must be a whole number of at least {least}")
    return value


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise bad(f"{name}: must be true or false")
    return bool(value)


def _place(body: Mapping[str, Any]) -> str:
    path = _text(body, "volumeMountPath", "/workspace")
    if not is_place(path):
        raise bad("volumeMountPath: must be an absolute path that holds nothing of the system")
    return path


def _ports(body: Mapping[str, Any]) -> tuple[str, ...]:
    ports = _texts(body, "ports") if body.get("ports") is not None else ("8888/http", "22/tcp")
    numbers = [port.partition("/")[0] for port in ports]
    if not all(map(_PORT.match, ports)) or len(set(numbers)) < len(numbers):
        raise bad("ports: each is such as 8888/http or 22/tcp, and no number is both")
    return ports


def _environment(body: Mapping[str, Any]) -> dict[str, str]:
    value = body.get("env") or {}
    if not isinstance(value, Mapping) or not all(isinstance(one, str) for one in value.values()):
        raise bad("env: must be an object of texts")
    if not all(_VARIABLE.match(name) for name in value):
        raise bad("env: has a name that no environment variable has")
    return dict(value)
