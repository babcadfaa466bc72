# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""From the rows of Lambda's API to our words: pure, and wary of every string, because a name may be a stranger's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping

from ..endpoint import check_endpoint
from ..failures import TenantFailure
from ..rented_box import HOURS_PER_MONTH, Box, box_facts, number
from ..row_fields import fields, rows, text, texts, whole
from ..stamp import Stamp, parse_stamp

LOGIN = "ubuntu"
SSH_PORT = 22
# A tag of its own, because a name can be edited in the console.
STAMP_TAG = "tenant-stamp"
# Dollars for a GiB and month of a file system (facts of 2026-11).
FILE_SYSTEM = 0.20
_GIB = 1024.0**3
# An unhealthy one is what the console calls Alert: it was shut down from inside, or is not heard of. It bills on.
UNHEALTHY = "unhealthy"
LEAVING = ("terminating", "terminated")
_STATES = {"booting": "loading", "active": "running", UNHEALTHY: "offline"}


@dataclass(frozen=True)
class Vm(Box):
    """An instance as a box. What it has beyond one:

    :param status: booting, active, unhealthy, terminating or preempted, as the API has it.
    :param file_systems: the names of those that it sees.
    :param mount_points: where it sees them.
    """

    status: str = ""
    instance_type: str = ""
    region: str = ""
    file_systems: tuple[str, ...] = ()
    mount_points: tuple[str, ...] = ()
    hostname: str = ""

    @property
    def is_alert(self) -> bool:
        return self.status == UNHEALTHY


@dataclass(frozen=True)
class FileSystem:
    """:param gib: what lies in it, by the provider's estimate; None where it tells none."""

    id: str
    name: str
    region: str
    mount_point: str
    in_use: bool | None
    gib: float | None

    def as_result(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "region": self.region,
            "mount_point": self.mount_point,
            "in_use": self.in_use,
            "gib": None if self.gib is None else round(self.gib, 3),
            "price_per_hour": None if self.gib is None else round(self.gib * FILE_SYSTEM / HOURS_PER_MONTH, 6),
        }


@dataclass(frozen=True)
class InstanceType:
    """:param price: dollars an hour, None where the API does not say.
    :param regions: where one is free now.
    """

    name: str
    price: float | None
    gpus: int | None
    regions: tuple[str, ...]


def to_vm(row: Mapping[str, Any]) -> Vm:
    """The instance in a row. A row with a bad endpoint still is one, so that it can be seen and terminated."""
    problem, host, port, user = "", "", 0, LOGIN
    try:
        host, port, user = endpoint_of(row)
    except TenantFailure as failure:
        problem = failure.what
    status = text(row.get("status"))
    kind = fields(row.get("instance_type"))
    specs = fields(kind.get("specs"))
    return Vm(
        provider_id=str(row["id"]),
        stamp=stamp_of(row),
        label=text(row.get("name")),
        state=state_of(status, bool(host)),
        # There is no state of rest: what is not on its way out is wanted to run.
        intended="" if status in LEAVING or status not in _STATES else "running",
        host=host,
        port=port,
        user=user,
        proxy=False,
        machine_id=None,
        host_id=None,
        gpu_name=text(kind.get("gpu_description")) or text(kind.get("description")),
        num_gpus=whole(specs.get("gpus")),
        gpu_ram_mb=None,
        dph_total=_dollars(kind.get("price_cents_per_hour")),
        min_bid=None,
        is_bid=False,
        start_date=None,
        status_msg=_meaning(status),
        disk_gb=number(specs.get("storage_gib")),
        actual=status,
        is_leaving=status in LEAVING,
        endpoint_problem=problem,
        status=status,
        instance_type=text(kind.get("name")),
        region=text(fields(row.get("region")).get("name")),
        file_systems=tuple(texts(row.get("file_system_names"))),
        mount_points=tuple(_mount_points(row.get("file_system_mounts"))),
        hostname=text(row.get("hostname")),
    )


def stamp_of(row: Mapping[str, Any]) -> Stamp | None:
    """The stamp in the name, else the one in its tag."""
    tags = row.get("tags")
    tagged = [tag.get("value") for tag in rows(tags) if tag.get("key") == STAMP_TAG]
    return parse_stamp(row.get("name")) or parse_stamp(tagged[0] if tagged else None)


def endpoint_of(row: Mapping[str, Any]) -> tuple[str, int, str]:
    """Where its sshd is, and whom it lets in; an empty host before it has an address. TenantFailure for what cannot be.

    The provider tells neither port nor login: they are 22 and ubuntu. The marketplace, all of whose boxes share an
    address, tells another port, and another login where its engine has no users.
    """
    address = row.get("ip")
    if not address or row.get("status") not in ("active", UNHEALTHY):
        return "", 0, LOGIN
    given = address.strip() if isinstance(address, str) else address
    return check_endpoint(given, row.get("ssh_port", SSH_PORT), row.get("ssh_user", LOGIN))


def state_of(status: str, reachable: bool) -> str:
    """An active instance runs for us once it has an address."""
    state = _STATES.get(status, "unknown")
    return "loading" if state == "running" and not reachable else state


def to_file_system(row: Mapping[str, Any]) -> FileSystem:
    used, in_use = number(row.get("bytes_used")), row.get("is_in_use")
    return FileSystem(
        id=str(row["id"]),
        name=text(row.get("name")),
        region=text(fields(row.get("region")).get("name")),
        mount_point=text(row.get("mount_point")),
        in_use=in_use if isinstance(in_use, bool) else None,
        gib=None if used is None or used < 0 else used / _GIB,
    )


def to_types(table: Mapping[str, Mapping[str, Any]]) -> dict[str, InstanceType]:
    """The instance types by name."""
    found = {}
    for name, row in table.items():
        kind = fields(row.get("instance_type"))
        regions = [text(region.get("name")) for region in rows(row.get("regions_with_capacity_available"))]
        found[name] = InstanceType(
            name,
            _dollars(kind.get("price_cents_per_hour")),
            whole(fields(kind.get("specs")).get("gpus")),
            tuple(region for region in regions if region),
        )
    return found


def clocks_of(vm: Vm) -> dict[str, Any]:
    """What it bills; None means unknown."""
    return {
        "running_per_hour": vm.dph_total,
        "warning": (
            "there is no state of rest: it bills until it is terminated, also when it was shut down from inside or is "
            "unhealthy; absent ends the bill and deletes its disk, and its file systems bill on until they are deleted"
        ),
    }


def vm_result(vm: Vm, provider_now: float | None = None) -> dict[str, Any]:
    """An instance as a module returns it: plain values, without the token of its Jupyter."""
    left_out = ("host_id", "machine_id", "gpu_ram_mb", "bid", "min_bid", "ports", "market", "created_at", "proxy")
    return {
        **{name: value for name, value in box_facts(vm, provider_now).items() if name not in left_out},
        "status": vm.status,
        "alert": vm.is_alert,
        "instance_type": vm.instance_type,
        "region": vm.region,
        "file_systems": list(vm.file_systems),
        "mount_points": list(vm.mount_points),
        "hostname": vm.hostname,
        "clocks": clocks_of(vm),
    }


def _meaning(status: str) -> str:
    """What a status means beside its name."""
    return {
        UNHEALTHY: "unhealthy (Alert in the console): shut down from inside, or not heard of; it bills on",
        "preempted": "preempted: the provider took it back",
    }.get(status, status)


def _dollars(cents: Any) -> float | None:
    """Some answers write cents as text; none are below 0."""
    found = number(int(cents)) if isinstance(cents, str) and cents.isascii() and cents.isdigit() else number(cents)
    return found / 100 if found is not None and found >= 0 else None


def _mount_points(value: Any) -> list[str]:
    return [text(row.get("mount_point")) for row in rows(value)]
