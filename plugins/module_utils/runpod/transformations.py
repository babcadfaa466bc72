# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""From the rows of RunPod's API to our words: pure, and wary of every string, because a name may be a stranger's."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import Any, Mapping

from ..endpoint import check_endpoint
from ..failures import TenantFailure
from ..rented_box import HOURS_PER_MONTH, Box, box_facts
from ..row_fields import amount, fields, text, texts, whole
from ..stamp import ENVIRONMENT_NAME, Stamp, parse_stamp

LOGIN = "root"
SSH_PORT = "22/tcp"
# Dollars for a GB and month (facts of 2026-11): container disk and volume disk of a pod that runs, volume disk of one
# that rests.
DISK_RUNNING = 0.10
VOLUME_RESTING = 0.20
_STATES = {"EXITED": "stopped", "RUNNING": "running"}
# How a pod that its tenant stopped says so. A spot pod that ended otherwise was taken.
_BY_US = re.compile(r"exited by user\b", re.I)
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:\.\d{1,9})? ?(?:Z|\+00:?00(?: UTC)?)\Z")


@dataclass(frozen=True)
class Pod(Box):
    """A pod as a box. What it has beyond one:

    :param machine: the id of its machine, which is text.
    :param desired: RUNNING, EXITED or TERMINATED, as the API has it.
    :param mount_path: where its volume disk or network volume is mounted.
    :param has_ssh: whether its sshd was asked for; without, only the proxy's shell reaches it.
    """

    machine: str = ""
    desired: str = ""
    gpu_type: str = ""
    container_gb: float | None = None
    volume_gb: float | None = None
    mount_path: str = ""
    network_volume: str = ""
    data_center: str = ""
    has_ssh: bool = False

    def keeps(self, path: str) -> bool:
        """Whether what lies in this folder outlives a stop: only what is on its volume does. Unknown counts as no."""
        return bool(self.volume_gb or self.network_volume) and lies_below(path, self.mount_path)


def to_pod(row: Mapping[str, Any]) -> Pod:
    """The pod in a row. A row with a bad endpoint still is a pod, so that it can be seen and terminated."""
    problem, host, port = "", "", 0
    try:
        host, port = endpoint_of(row)
    except TenantFailure as failure:
        problem = failure.what
    desired = text(row.get("desiredStatus"))
    volume, container = amount(row.get("volumeInGb")), amount(row.get("containerDiskInGb"))
    machine, gpu = fields(row.get("machine")), fields(row.get("gpu"))
    network = text(fields(row.get("networkVolume")).get("id"))
    compute = amount(row.get("costPerHr"))
    interruptible, said = row.get("interruptible") is True, text(row.get("lastStatusChange"))
    return Pod(
        provider_id=str(row["id"]),
        stamp=stamp_of(row),
        label=text(row.get("name")),
        state=state_of(desired, bool(host), interruptible and bool(said) and not _BY_US.match(said)),
        intended={"EXITED": "stopped", "RUNNING": "running"}.get(desired, ""),
        host=host,
        port=port,
        user=LOGIN,
        proxy=False,
        machine_id=None,
        host_id=None,
        gpu_name=text(gpu.get("displayName")) or text(gpu.get("id")),
        num_gpus=whole(gpu.get("count")),
        gpu_ram_mb=None,
        dph_total=_total(compute, container, volume),
        min_bid=None,
        is_bid=interruptible,
        start_date=epoch_of(row.get("lastStartedAt")),
        status_msg=said,
        storage_per_hour=None if volume is None else volume * VOLUME_RESTING / HOURS_PER_MONTH,
        disk_gb=volume,
        actual=desired,
        is_leaving=desired == "TERMINATED",
        endpoint_problem=problem,
        image=text(row.get("image")) or text(row.get("imageName")),
        environment=_environment(row),
        machine=text(row.get("machineId")),
        desired=desired,
        gpu_type=text(machine.get("gpuTypeId")) or text(gpu.get("id")),
        container_gb=container,
        volume_gb=volume,
        mount_path=text(row.get("volumeMountPath")),
        network_volume=network,
        data_center=text(machine.get("dataCenterId")),
        has_ssh=SSH_PORT in _ports(row.get("ports")),
    )


def stamp_of(row: Mapping[str, Any]) -> Stamp | None:
    """The stamp in the name, else the one in the environment (a name can be edited in the console)."""
    return parse_stamp(row.get("name")) or parse_stamp((_environment(row) or {}).get(ENVIRONMENT_NAME))


def endpoint_of(row: Mapping[str, Any]) -> tuple[str, int]:
    """Where the pod's own sshd is reached; an empty host while it is not. TenantFailure for one that cannot be."""
    mapped = fields(row.get("portMappings")).get("22")
    address = row.get("publicIp")
    if not mapped or not address or row.get("desiredStatus") != "RUNNING":
        return "", 0
    host, port, _user = check_endpoint(address.strip() if isinstance(address, str) else address, mapped, LOGIN)
    return host, port


def state_of(desired: str, reachable: bool, was_taken: bool = False) -> str:
    """RunPod tells only what is desired; a pod runs for us once its ssh port is mapped.

    :param was_taken: it is a spot pod, and it was not its tenant who ended it.
    """
    state = _STATES.get(desired, "unknown")
    if state == "stopped" and was_taken:
        return "outbid"
    return "loading" if state == "running" and not reachable else state


def clocks_of(pod: Pod) -> dict[str, Any]:
    """What this pod bills in each state; None means unknown."""
    return {
        "running_per_hour": pod.dph_total,
        "stopped_per_hour": pod.storage_per_hour,
        "warning": (
            "a stopped pod's volume disk bills twice as much as while it runs, its container disk is wiped, and it "
            "may come back without a GPU; only absent ends the bill, and deletes the volume disk (a network volume "
            "bills on)"
        ),
    }


def pod_result(pod: Pod, provider_now: float | None = None) -> dict[str, Any]:
    """A pod as a module returns it: plain values, nothing that could be a secret."""
    shown = box_facts(pod, provider_now)
    shown["started_at"] = shown.pop("created_at")
    left_out = ("host_id", "gpu_ram_mb", "bid", "min_bid", "ports", "disk_gb")
    return {
        **{name: value for name, value in shown.items() if name not in left_out},
        "machine_id": pod.machine,
        "gpu_type": pod.gpu_type,
        "container_disk_gb": pod.container_gb,
        "volume_gb": pod.volume_gb,
        "volume_mount_path": pod.mount_path,
        "network_volume": pod.network_volume,
        "data_center": pod.data_center,
        "clocks": clocks_of(pod),
    }


def epoch_of(text: Any) -> float | None:
    """The API's moments, which it writes in two ways, as epoch seconds; None for any other text."""
    found = _TIME.match(text) if isinstance(text, str) else None
    if found is None:
        return None
    try:
        moment = datetime.datetime(*map(int, found.groups()), tzinfo=datetime.timezone.utc)  # type: ignore[misc, arg-type]
    except ValueError:
        return None
    return moment.timestamp()


def lies_below(path: str, mount_path: str) -> bool:
    """Whether a folder is that mount, or in it."""
    folder, mount = (_folders(one) for one in (path, mount_path))
    return bool(mount) and folder[: len(mount)] == mount


def _folders(path: str) -> list[str]:
    """The folders of an absolute path from the root on; none for any other, or one that goes back up."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return parts if path.startswith("/") and ".." not in parts else []


def _total(compute: float | None, container: float | None, volume: float | None) -> float | None:
    """Dollars an hour with the disks, which ``costPerHr`` is not known to hold: at most too much, never too little."""
    if compute is None:
        return None
    return compute + ((container or 0.0) + (volume or 0.0)) * DISK_RUNNING / HOURS_PER_MONTH


def _ports(value: Any) -> list[str]:
    """Ports come as a list, and from the older API as one text."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return texts(value)


def _environment(row: Mapping[str, Any]) -> dict[str, str] | None:
    env = row.get("env")
    return {str(name): str(value) for name, value in env.items()} if isinstance(env, dict) else None
