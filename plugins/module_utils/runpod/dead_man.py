# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The stop that RunPod does by itself, at a moment that is said when a pod is rented. Pure.

Only the GraphQL of RunPod takes such a moment (``stopAfter``; ``runpodctl --stop-after`` sends it there), neither
version of its REST does, and nothing is known that moves it later. So a pod with a dead-man's stop is rented by
GraphQL, and all else of it goes by REST. A stop keeps the volume. ``terminateAfter`` is never sent: it would end a pod
without a look at the evidence.
"""

from __future__ import annotations

import datetime
import shlex
from typing import Any, Mapping

FIELD = "podFindAndDeployOnDemand"
DEPLOY = f"mutation deploy($input: PodFindAndDeployOnDemandInput!) {{ {FIELD}(input: $input) {{ id desiredStatus }} }}"


def deploy_inputs(body: Mapping[str, Any], stop_at: float) -> list[dict[str, Any]]:
    """What is sent for one create, in the words of version 1: one card and one data center each, in their order."""
    shared = {
        "name": body["name"],
        "imageName": body["imageName"],
        "cloudType": body["cloudType"],
        "gpuCount": body["gpuCount"],
        "supportPublicIp": True,
        "containerDiskInGb": body["containerDiskInGb"],
        "volumeInGb": body.get("volumeInGb") or 0,
        "volumeMountPath": body["volumeMountPath"],
        "ports": ",".join(body["ports"]),
        "env": [{"key": name, "value": value} for name, value in body["env"].items()],
        "stopAfter": as_moment(stop_at),
    }
    if body.get("networkVolumeId"):
        shared["networkVolumeId"] = body["networkVolumeId"]
    if body.get("allowedCudaVersions"):
        shared["allowedCudaVersions"] = body["allowedCudaVersions"]
    if body.get("dockerStartCmd"):
        shared["dockerArgs"] = " ".join(map(shlex.quote, body["dockerStartCmd"]))
    places = [{"dataCenterId": place} for place in body.get("dataCenterIds") or []] or [{}]
    return [{**shared, "gpuTypeId": card, **place} for card in body["gpuTypeIds"] for place in places]


def as_moment(epoch: float) -> str:
    told = datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc)
    return told.strftime("%Y-%m-%dT%H:%M:%SZ")
