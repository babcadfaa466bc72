# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The two versions of RunPod's REST: where things are, how they are asked for, and what their rows look like. Pure.

RunPod retires version 1 (rest.runpod.io/v1) in November or December of 2026, as its pages say by turns, and version 2
(api.runpod.io/v2) is still in beta. The rest of this collection reads rows in the words of version 1; those of version
2 are put into them here.

What version 2 does not tell: the machine of a pod, and the price of one that rests. A pod that came back without GPUs
is known by the lack of ``gpu``, or of GPUs among what runs; where it tells neither, the probe on the box counts them.
"""

from __future__ import annotations

import shlex
from typing import Any, Mapping

from ..failures import TenantFailure
from ..row_fields import fields

# What the API of version 2 calls the states in which a pod is told to run.
_COMING_UP = ("PROVISIONING", "STARTING")
_LEAST_VOLUME_GB = 10


class First:
    """Version 1: flat bodies, bare lists, a path for each verb."""

    SUFFIX = "/v1"
    # Whether a create may ask for a spot pod.
    HAS_SPOT = True
    PODS, VOLUMES = "/pods", "/networkvolumes"
    QUERY: Mapping[str, str] = {"includeMachine": "true", "includeNetworkVolume": "true"}

    def rows(self, answer: Any, _path: str) -> Any:
        return answer

    def row(self, answer: Any) -> Any:
        return answer

    def volume_row(self, answer: Any) -> Any:
        return answer

    def verb(self, pod: str, action: str) -> tuple[str, dict[str, str] | None]:
        """The path and the body by which the pod of this path is told to ``start`` or ``stop``."""
        return f"{pod}/{action}", None

    def create_bodies(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What is sent for one create: each only after the one before was refused for want of capacity."""
        return [dict(body)]

    def volume_body(self, name: str, size_gb: int, data_center: str) -> dict[str, Any]:
        return {"name": name, "size": size_gb, "dataCenterId": data_center}


class Second(First):
    """Version 2: nested bodies that may have no field more, wrapped lists, one path for verbs, one card a create."""

    SUFFIX = "/v2"
    HAS_SPOT = False
    VOLUMES = "/network-volumes"
    QUERY: Mapping[str, str] = {}
    _NAMES: Mapping[str, str] = {First.PODS: "pods", "/network-volumes": "networkVolumes"}

    def rows(self, answer: Any, path: str) -> Any:
        listed = answer.get(self._NAMES[path]) if isinstance(answer, dict) else None
        if not isinstance(listed, list):
            return None
        return [self.row(one) if path == self.PODS else self.volume_row(one) for one in listed]

    def row(self, answer: Any) -> Any:
        return pod_as_first(answer) if isinstance(answer, dict) else answer

    def volume_row(self, answer: Any) -> Any:
        if not isinstance(answer, dict):
            return answer
        return {**answer, "dataCenterId": answer.get("dataCenter")}

    def verb(self, pod: str, action: str) -> tuple[str, dict[str, str] | None]:
        return f"{pod}/action", {"action": action}

    def create_bodies(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        shared: dict[str, Any] = {
            "name": body["name"],
            "image": body["imageName"],
            "cloud": body["cloudType"],
            "disk": body["containerDiskInGb"],
            "ports": body["ports"],
            "env": body["env"],
            "mounts": _mounts(body),
        }
        if body.get("dataCenterIds"):
            shared["dataCenterIds"] = body["dataCenterIds"]
        if body.get("dockerStartCmd"):
            # One text, which the provider splits into words again.
            shared["args"] = " ".join(map(shlex.quote, body["dockerStartCmd"]))
        gpu: dict[str, Any] = {"count": body["gpuCount"]}
        if body.get("allowedCudaVersions"):
            gpu["allowedCudaVersions"] = body["allowedCudaVersions"]
        return [{**shared, "gpu": {"id": card, **gpu}} for card in body["gpuTypeIds"]]

    def volume_body(self, name: str, size_gb: int, data_center: str) -> dict[str, Any]:
        return {"name": name, "size": size_gb, "dataCenter": data_center}


GENERATIONS = (Second(), First())


def _mounts(body: Mapping[str, Any]) -> dict[str, Any]:
    path = body["volumeMountPath"]
    if body.get("networkVolumeId"):
        return {"network": [{"volumeId": body["networkVolumeId"], "path": path}]}
    size = body.get("volumeInGb") or 0
    if 0 < size < _LEAST_VOLUME_GB:
        raise TenantFailure(
            "config",
            f"volume_gb is {size}, and a volume disk has {_LEAST_VOLUME_GB} GB at least",
            safe="nothing was rented",
            fix=f"ask for {_LEAST_VOLUME_GB} or more",
        )
    return {"persistent": {"size": size, "path": path}} if size else {}


def pod_as_first(row: Mapping[str, Any]) -> dict[str, Any]:
    """A pod of version 2 in the words of version 1. What is not told stays untold."""
    status, gpu, mounts = row.get("status"), fields(row.get("gpu")), fields(row.get("mounts"))
    own, network = fields(mounts.get("persistent")), _first_of(mounts.get("network"))
    address, port = _endpoint(row)
    runs = status == "RUNNING"
    return {
        "id": row.get("id"),
        "name": row.get("name"),
        "image": row.get("image"),
        "env": row.get("env"),
        "desiredStatus": "RUNNING" if status in _COMING_UP else status,
        "lastStatusChange": status,
        "lastStartedAt": row.get("startedAt"),
        # 0 while it rests says nothing of what it costs when it runs.
        "costPerHr": row.get("cost") if runs or status in _COMING_UP else None,
        "gpu": {"id": gpu.get("id"), "count": _gpus(row, gpu) if runs else gpu.get("count")},
        "interruptible": False,
        "machine": {"gpuTypeId": gpu.get("id"), "dataCenterId": row.get("dataCenterId")},
        "containerDiskInGb": row.get("disk"),
        "volumeInGb": own.get("size") if own else 0,
        "volumeMountPath": own.get("path") or network.get("path"),
        "networkVolume": {"id": network.get("volumeId")} if network else None,
        "ports": row.get("ports"),
        "publicIp": address if runs else "",
        "portMappings": {"22": port} if runs and port else {},
    }


def _gpus(row: Mapping[str, Any], gpu: Mapping[str, Any]) -> Any:
    """How many GPUs a pod that runs has. An empty list of what they do may only be late, so that it says nothing."""
    if "gpu" in row and not gpu:
        return None
    if not gpu:
        return 0
    busy = fields(row.get("runtime")).get("gpus")
    count = gpu.get("count", 1)
    fewer = isinstance(busy, list) and busy and isinstance(count, int) and len(busy) < count
    return len(busy) if fewer else count  # type: ignore[arg-type]


def _endpoint(row: Mapping[str, Any]) -> tuple[Any, Any]:
    """Where its own sshd is reached, as the API says it in two places; empty while it is not."""
    direct = fields(fields(row.get("ssh")).get("direct"))
    if direct:
        return direct.get("host"), direct.get("port")
    mapped = fields(row.get("runtime")).get("ports")
    for one in mapped if isinstance(mapped, list) else []:
        if fields(one).get("private") == 22 and one.get("type") == "tcp" and one.get("public"):
            return one.get("ip"), one["public"]
    return "", 0


def _first_of(value: Any) -> Mapping[str, Any]:
    return fields(value[0]) if isinstance(value, list) and value else {}
