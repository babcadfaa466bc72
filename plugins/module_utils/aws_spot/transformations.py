# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""From EC2's instances and Spot requests to our words: pure."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from ..endpoint import check_endpoint
from ..failures import TenantFailure
from ..leftovers import Leftover
from ..rented_box import HOURS_PER_MONTH, Box, box_facts, number
from ..stamp import Stamp, parse_stamp
from .api import LOGIN_TAG, STAMP_TAG, volumes_of

LOGIN, SSH_PORT = "ubuntu", 22
# Dollars for a GB and month of gp3 in the dearest region (facts of 2026-11), so that a sum with it is no less than the
# bill.
EBS_MOST = 0.16
LEAVING = ("shutting-down", "terminated")
_STATES = {"pending": "loading", "running": "running", "stopped": "stopped"}


@dataclass(frozen=True)
class SpotBox(Box):
    """An instance, or a request for one, as a box. What it has beyond one:

    :param status: pending, running, shutting-down, … as EC2 has it; ``requested`` while nothing came of the request.
    :param lifecycle: ``spot``; empty for an instance that is billed on demand.
    :param max_price: the most that EC2 may bill for an hour; None where its request is not told any more.
    :param is_tagged: whether the instance itself carries the stamp, and not only its request.
    :param login: user and port as it was tagged with.
    """

    status: str = ""
    instance_type: str = ""
    zone: str = ""
    request_id: str = ""
    lifecycle: str = ""
    max_price: float | None = None
    is_tagged: bool = False
    login: str = ""
    volumes: tuple[str, ...] = ()

    @property
    def is_waiting(self) -> bool:
        """A request that nothing has come of yet."""
        return self.status == "requested"


def disk_rate(gb: float) -> float:
    """The most that so large a disk costs an hour."""
    return gb * EBS_MOST / HOURS_PER_MONTH


def to_spot_box(row: Mapping[str, Any]) -> SpotBox:
    """The box in a row. A row with a bad endpoint still is one, so that it can be seen and terminated."""
    instance, request = row.get("instance"), row.get("request") or {}
    return _of_request(row, request) if instance is None else _of_instance(row, instance, request)


def _of_request(row: Mapping[str, Any], request: Mapping[str, Any]) -> SpotBox:
    asked = request.get("LaunchSpecification") or {}
    why = request.get("Status") or {}
    return SpotBox(
        **_identity(row, _stamp(request.get("Tags"))),
        **_nowhere(""),
        state="scheduling",
        intended="running",
        gpu_name="",
        num_gpus=None,
        gpu_ram_mb=None,
        dph_total=None,
        start_date=_epoch(request.get("CreateTime")),
        status_msg=f"{why.get('Code', '')}: {why.get('Message', '')}"[:200],
        bid=_dollars(request.get("SpotPrice")),
        status="requested",
        instance_type=str(asked.get("InstanceType") or ""),
        request_id=str(request.get("SpotInstanceRequestId") or ""),
        lifecycle="spot",
        max_price=_dollars(request.get("SpotPrice")),
    )


def _of_instance(row: Mapping[str, Any], instance: Mapping[str, Any], request: Mapping[str, Any]) -> SpotBox:
    status = str((instance.get("State") or {}).get("Name") or "")
    login = _tag(instance.get("Tags"), LOGIN_TAG) or _tag(request.get("Tags"), LOGIN_TAG)
    place = _endpoint(instance, status, login)
    own = _stamp(instance.get("Tags"))
    reason = instance.get("StateReason") or {}
    price, gb = number(row.get("spot_price")), float(row.get("volume_gb") or 0)
    storage = disk_rate(gb)
    state = _STATES.get(status, "unknown")
    count, name, ram = _gpus(row.get("kind") or {})
    return SpotBox(
        **_identity(row, own or _stamp(request.get("Tags"))),
        **place,
        state="loading" if state == "running" and not place["host"] else state,
        intended="stopped" if status in ("stopping", "stopped") else "running",
        gpu_name=name,
        num_gpus=count,
        gpu_ram_mb=ram,
        dph_total=None if price is None else price + storage,
        start_date=_epoch(instance.get("LaunchTime")),
        status_msg=str(reason.get("Message") or "")[:200],
        bid=_dollars(request.get("SpotPrice")),
        storage_per_hour=storage,
        disk_gb=gb or None,
        is_leaving=status in LEAVING,
        image=str(instance.get("ImageId") or ""),
        status=status,
        instance_type=str(instance.get("InstanceType") or ""),
        zone=str((instance.get("Placement") or {}).get("AvailabilityZone") or ""),
        request_id=str(instance.get("SpotInstanceRequestId") or request.get("SpotInstanceRequestId") or ""),
        lifecycle=str(instance.get("InstanceLifecycle") or ""),
        max_price=_dollars(request.get("SpotPrice")),
        is_tagged=own is not None,
        login=login,
        volumes=tuple(volumes_of(instance)),
    )


def _identity(row: Mapping[str, Any], stamp: Stamp | None) -> dict[str, Any]:
    label = str(stamp) if stamp else ""
    return {
        "provider_id": str(row["id"]), "stamp": stamp, "label": label, "machine_id": None, "host_id": None,
        "min_bid": None, "is_bid": True,
    }  # fmt: skip


def _nowhere(problem: str) -> dict[str, Any]:
    return {"host": "", "port": 0, "user": LOGIN, "proxy": False, "endpoint_problem": problem}


def _endpoint(instance: Mapping[str, Any], status: str, login: str) -> dict[str, Any]:
    """Where its sshd is: the public address, or the private one of an instance that has no other."""
    address = instance.get("PublicIpAddress") or instance.get("PrivateIpAddress")
    if status != "running" or not address:
        return _nowhere("")
    told_user, _colon, told_port = login.partition(":")
    try:
        host, port, user = check_endpoint(address, told_port or SSH_PORT, told_user or LOGIN)
    except TenantFailure as failure:
        return _nowhere(failure.what)
    return {**_nowhere(""), "host": host, "port": port, "user": user}


def _gpus(kind: Mapping[str, Any]) -> tuple[int | None, str, int | None]:
    cards: Sequence[Mapping[str, Any]] = (kind.get("GpuInfo") or {}).get("Gpus") or []
    if not cards:
        return (0 if kind else None), "", None
    ram = (cards[0].get("MemoryInfo") or {}).get("SizeInMiB")
    name = f"{cards[0].get('Manufacturer', '')} {cards[0].get('Name', '')}".strip()
    return sum(int(card.get("Count") or 0) for card in cards), name, int(ram) if ram else None


def _stamp(tags: Any) -> Stamp | None:
    return parse_stamp(_tag(tags, STAMP_TAG))


def _tag(tags: Any, name: str) -> str:
    return next((str(tag.get("Value") or "") for tag in tags or [] if tag.get("Key") == name), "")


def _epoch(moment: Any) -> float | None:
    return moment.timestamp() if isinstance(moment, datetime.datetime) else None


def _dollars(text: Any) -> float | None:
    try:
        return number(float(text))
    except (TypeError, ValueError):
        return None


def spot_result(box: SpotBox, provider_now: float | None = None) -> dict[str, Any]:
    """A box as the module returns it: plain values."""
    left_out = ("host_id", "machine_id", "min_bid", "ports", "proxy")
    return {
        **{name: value for name, value in box_facts(box, provider_now).items() if name not in left_out},
        "status": box.status,
        "instance_type": box.instance_type,
        "zone": box.zone,
        "request_id": box.request_id,
        "max_price": box.max_price,
        "volumes": list(box.volumes),
        "clocks": {
            "running_per_hour": box.dph_total,
            "warning": (
                "AWS may take it back with two minutes' notice, and its disk is deleted with it; there is no state of "
                "rest, and only absent ends the bill"
            ),
        },
    }


def left_result(volume: Mapping[str, Any]) -> dict[str, Any]:
    """A volume that outlived its instance."""
    gb = int(volume.get("Size") or 0)
    return {
        "volume_id": str(volume.get("VolumeId") or ""),
        "gb": gb,
        "state": str(volume.get("State") or ""),
        "price_per_hour_at_most": round(disk_rate(gb), 6),
    }


def instance_left(instance: Mapping[str, Any]) -> Leftover:
    """An instance without our stamp. What it bills depends on how it was bought, which no look at it tells."""
    status = str((instance.get("State") or {}).get("Name") or "")
    return Leftover("instance", str(instance["InstanceId"]), _tag(instance.get("Tags"), "Name"), status, None)


def volume_left(volume: Mapping[str, Any]) -> Leftover:
    """A volume of the region, whoever made it, at the price of the dearest region."""
    stamp, number_of_gb = _stamp(volume.get("Tags")), int(volume.get("Size") or 0)
    users = [str(one.get("InstanceId") or "") for one in volume.get("Attachments") or []]
    user = next(filter(None, users), "")
    lost = stamp is not None and not user
    note = f"used by {user}" if user else "its instance is gone, and it bills until somebody deletes it in the console"
    return Leftover(
        "volume",
        str(volume["VolumeId"]),
        str(stamp) if stamp else _tag(volume.get("Tags"), "Name"),
        str(volume.get("State") or ""),
        disk_rate(number_of_gb),
        user,
        stamp.project if stamp else "",
        note,
        lost,
    )
