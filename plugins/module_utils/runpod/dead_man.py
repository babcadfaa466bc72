# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What RunPod does to a pod by itself, at a moment that is said when the pod is rented. Pure.

Only the GraphQL of RunPod takes such a moment (``stopAfter``; ``runpodctl --stop-after`` sends it there), neither
version of its REST does, and nothing is known that moves it later. So a pod with a dead-man's switch is rented by
GraphQL, and all else of it goes by REST. A stop keeps the volume. ``terminateAfter`` ends a pod without a look at the
evidence: it is sent only where a person consented to that loss, see :mod:`.launch_consent`.
"""

from __future__ import annotations

import datetime
import shlex
from dataclasses import dataclass
from typing import Any, Mapping

FIELD = "podFindAndDeployOnDemand"
DEPLOY = f"mutation deploy($input: PodFindAndDeployOnDemandInput!) {{ {FIELD}(input: $input) {{ id desiredStatus }} }}"


@dataclass(frozen=True)
class Switch:
    """When RunPod acts by itself, by its own clock (epoch seconds); None for never."""

    stop_at: float | None = None
    end_at: float | None = None

    def fields(self) -> dict[str, str]:
        told = {"stopAfter": self.stop_at, "terminateAfter": self.end_at}
        return {name: as_moment(at) for name, at in told.items() if at is not None}


def deploy_inputs(body: Mapping[str, Any], switch: Switch) -> list[dict[str, Any]]:
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
        **switch.fields(),
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
