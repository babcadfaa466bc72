# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A tenant who uses RunPod's own SDK, unmodified, at ``RUNPOD_API_BASE_URL``: what it told and what it sent, as JSON.

It runs in a Python that has ``runpod`` 1.12; what it sent is kept in ``tests/unit/runpod/sdk_requests.json``, with POD
and VOLUME in the place of ids, so that the marketplace is held to it where the SDK is not installed.
"""

from __future__ import annotations

import json
import os
from typing import Any

import requests  # type: ignore[import-untyped, unused-ignore]
import runpod  # type: ignore[import-not-found, unused-ignore]

CARD = "NVIDIA GeForce RTX 4090"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKHEQ0VhZ3Jlc3Mgbm90aGluZyBidXQgYSB0ZXN0 sdk"


def main() -> None:
    runpod.api_key = os.environ["RUNPOD_API_KEY"]
    sent: list[str] = []
    post = requests.post

    def recording(url: str, **settings: Any) -> Any:
        sent.append(json.loads(settings["data"])["query"])
        return post(url, **settings)

    requests.post = recording
    told: dict[str, Any] = {"before": runpod.get_pods(), "cards": runpod.get_gpus(), "card": runpod.get_gpu(CARD, 1)}
    told["keys"] = runpod.update_user_settings(KEY)
    volume = os.environ.get("VOLUME", "")
    pod = runpod.create_pod(
        "of the sdk", "runpod/pytorch:2.8.0", CARD, cloud_type="ALL", gpu_count=1, volume_in_gb=20,
        container_disk_in_gb=30, ports="8888/http,22/tcp", volume_mount_path="/workspace",
        env={"GIVEN": "yes"}, docker_args="bash -c '/start.sh'",
    )  # fmt: skip
    told["made"] = pod
    told["listed"], told["shown"] = runpod.get_pods(), runpod.get_pod(pod["id"])
    told["stopped"] = runpod.stop_pod(pod["id"])
    told["resting"] = runpod.get_pod(pod["id"])
    told["resumed"] = runpod.resume_pod(pod["id"], 1)
    told["refused"] = _refusal(lambda: runpod.resume_pod(pod["id"], 7))
    runpod.terminate_pod(pod["id"])
    told["gone"] = runpod.get_pod(pod["id"])
    told["user"] = runpod.get_user()
    told["cpu"] = _refusal(lambda: runpod.create_pod("no card", "debian:12"))
    if volume:
        told["attached"] = runpod.create_pod("with a volume", "debian:12", CARD, network_volume_id=volume)
        runpod.terminate_pod(told["attached"]["id"])
    runpod.api_key = "another key"
    told["another_key"] = _refusal(runpod.get_pods)
    told["sent"] = [_placed(query, pod["id"], told.get("attached", {}).get("id", ""), volume) for query in sent]
    print(json.dumps(told))


def _refusal(ask: Any) -> str:
    try:
        ask()
    except runpod.error.RunPodError as refusal:
        return f"{type(refusal).__name__}: {refusal}"
    return ""


def _placed(query: str, pod: str, attached: str, volume: str) -> str:
    for found, place in ((pod, "POD"), (attached, "POD"), (volume, "VOLUME")):
        query = query.replace(found, place) if found else query
    return query


if __name__ == "__main__":
    main()
