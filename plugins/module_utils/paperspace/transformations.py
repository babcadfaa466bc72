# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""From the rows of Paperspace's API to our words: pure, and wary of every string, because a name may be a stranger's.

The OpenAPI names no unit of ``usageRate`` and ``storageRate``; dollars an hour are assumed. Were one of them dollars a
month, the price would look higher than it is, so that the cap refuses sooner, never later.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, Mapping

from ..box import records
from ..endpoint import check_endpoint
from ..failures import TenantFailure
from ..leftovers import Leftover
from ..rented_box import HOURS_PER_MONTH, Box, box_facts, utc_of
from ..row_fields import amount, fields, rows, text, texts, whole
from ..stamp import Stamp, parse_stamp
from .api import LAST_START, SCRIPTS

LOGIN = "paperspace"
SSH_PORT = 22
STATIC = "static"
# Dollars (facts of 2026-11): a static address an hour, a GB of a snapshot or of a shared drive a month.
STATIC_IP = 0.0045
SNAPSHOT = 0.29
_GIB = 1024.0**3
_OFF, _STOPPING = "off", "stopping"
# What the API has beside them: serviceready is its agent's word, and no promise that anybody can log in.
_STATES = {
    _OFF: "stopped", "ready": "running", "provisioning": "loading", "starting": "loading", "restarting": "loading",
    "serviceready": "loading", "upgrading": "loading", _STOPPING: "loading",
}  # fmt: skip


@dataclass(frozen=True)
class Machine(Box):
    """A machine as a box. What it has beyond one:

    :param status: off, provisioning, starting, serviceready, ready, restarting, upgrading or stopping.
    :param public_ip_type: static, dynamic or none.
    :param auto_shutdown_h: hours after a start at which it is shut down, None where it is not.
    """

    status: str = ""
    machine_type: str = ""
    region: str = ""
    public_ip_type: str = ""
    auto_shutdown_h: float | None = None
    auto_snapshots: bool = False

    @property
    def shuts_down_at(self) -> float | None:
        """When it will be shut down, in the provider's epoch seconds; None for never, or where nobody says."""
        if self.auto_shutdown_h is None or self.start_date is None or self.intended != "running":
            return None
        return self.start_date + self.auto_shutdown_h * 3600.0

    @property
    def deadlines(self) -> dict[str, float | None]:
        if self.auto_shutdown_h is None or self.intended != "running":
            return {}
        return {"auto_shutdown": self.shuts_down_at}


def to_machine(row: Mapping[str, Any]) -> Machine:
    """The machine in a row. A row with a bad endpoint still is one, so that it can be seen and deleted."""
    problem, host, port, user = "", "", 0, LOGIN
    try:
        host, port, user = endpoint_of(row)
    except TenantFailure as failure:
        problem = failure.what
    status, leaving = text(row.get("state")), bool(row.get("dtDeleted"))
    card = (rows(row.get("accelerators")) or [{}])[0]
    total = amount(row.get("storageTotal"))
    address_type = text(row.get("publicIpType"))
    return Machine(
        provider_id=str(row["id"]),
        stamp=stamp_of(row),
        label=text(row.get("name")),
        state=state_of(status, bool(host)),
        intended=_intended(status, leaving),
        host=host,
        port=port,
        user=user,
        proxy=False,
        machine_id=None,
        host_id=None,
        gpu_name=text(card.get("name")),
        num_gpus=whole(card.get("count")),
        gpu_ram_mb=None,
        dph_total=_per_hour(row, address_type, "usageRate", "storageRate"),
        min_bid=None,
        is_bid=False,
        start_date=epoch_of(row.get(LAST_START)),
        status_msg=status,
        storage_per_hour=_per_hour(row, address_type, "storageRate"),
        disk_gb=None if total is None else round(total / _GIB, 3),
        actual=status,
        is_leaving=leaving,
        endpoint_problem=problem,
        status=status,
        machine_type=text(row.get("machineType")),
        region=text(row.get("region")),
        public_ip_type=address_type,
        auto_shutdown_h=amount(row.get("autoShutdownTimeout")) if row.get("autoShutdownEnabled") is True else None,
        auto_snapshots=row.get("autoSnapshotEnabled") is True,
    )


def stamp_of(row: Mapping[str, Any]) -> Stamp | None:
    """The stamp in the name, else the one in the name of its startup script."""
    scripted = [found for found in map(parse_stamp, texts(row.get(SCRIPTS))) if found is not None]
    return parse_stamp(row.get("name")) or (scripted[0] if scripted else None)


def endpoint_of(row: Mapping[str, Any]) -> tuple[str, int, str]:
    """Where its sshd is, and whom it lets in; an empty host without an address. TenantFailure for what cannot be.

    The provider tells neither port nor login: they are 22 and paperspace. The marketplace, all of whose boxes share an
    address, tells another port, and another login where its engine has no users.
    """
    address = row.get("publicIp")
    if not address or row.get("state") != "ready":
        return "", 0, LOGIN
    found = address.strip() if isinstance(address, str) else address
    return check_endpoint(found, row.get("sshPort", SSH_PORT), row.get("sshUser", LOGIN))


def state_of(status: str, reachable: bool) -> str:
    """A ready machine runs for us once it has an address."""
    state = _STATES.get(status, "unknown")
    return "loading" if state == "running" and not reachable else state


def clocks_of(machine: Machine, provider_now: float | None = None) -> dict[str, Any]:
    """What it bills in each state, and when the provider shuts it down; None means unknown."""
    at = machine.shuts_down_at
    left = None if at is None or provider_now is None else max(0, int(at - provider_now))
    return {
        "running_per_hour": machine.dph_total,
        "stopped_per_hour": machine.storage_per_hour,
        "auto_shutdown_hours": machine.auto_shutdown_h,
        "auto_shutdown_at": utc_of(at),
        "auto_shutdown_left_s": left,
        "warning": (
            "a machine that is off bills its disk and its static address; only absent ends that bill, deletes the disk "
            "and releases the address, and snapshots, shared drives and templates bill until somebody deletes them"
        ),
    }


def machine_result(machine: Machine, provider_now: float | None = None) -> dict[str, Any]:
    """A machine as a module returns it: plain values, nothing that could be a secret."""
    shown = box_facts(machine, provider_now)
    shown["started_at"] = shown.pop("created_at")
    left_out = ("host_id", "machine_id", "gpu_ram_mb", "bid", "min_bid", "ports", "market", "proxy")
    return {
        **{name: value for name, value in shown.items() if name not in left_out},
        "status": machine.status,
        "machine_type": machine.machine_type,
        "region": machine.region,
        "public_ip_type": machine.public_ip_type,
        "auto_snapshots": machine.auto_snapshots,
        "clocks": clocks_of(machine, provider_now),
    }


# --- what is left beside machines ---------------------------------------------------------------------------------


def address_left(row: Mapping[str, Any]) -> Leftover:
    user = text(row.get("assignedMachineId"))
    state = "assigned" if user else "not assigned"
    return Leftover("static IP", str(row["ip"]), text(row.get("region")), state, STATIC_IP, user)


def snapshot_left(row: Mapping[str, Any]) -> Leftover:
    """Its size is told nowhere, and so neither is its price."""
    state = "automatic" if row.get("isAutoSnapshot") is True else "made by hand"
    return Leftover("snapshot", str(row["id"]), text(row.get("name")), state, None, text(row.get("machineId")))


def drive_left(row: Mapping[str, Any]) -> Leftover:
    size = amount(row.get("size"))
    price = None if size is None else size / _GIB * SNAPSHOT / HOURS_PER_MONTH
    return Leftover("shared drive", str(row["id"]), text(row.get("name")), text(row.get("region")), price)


def template_left(row: Mapping[str, Any]) -> Leftover:
    """What it was made of may be gone, and what it costs is told nowhere."""
    name, region = text(row.get("name")), text(row.get("region"))
    return Leftover("custom template", str(row["id"]), name, region, None, text(row.get("parentMachineId")))


def fits(template: Mapping[str, Any], machine_type: str) -> bool | None:
    """Whether a template can be had on a machine type; None where it does not say."""
    listed = [fields(one) for one in rows(template.get("availableMachineTypes"))]
    said = [one.get("isAvailable") for one in listed if one.get("machineTypeLabel") == machine_type]
    if not listed:
        return None
    return bool(said) and said[0] is True


def epoch_of(moment: Any) -> float | None:
    """A moment of the API's (``2023-12-14T08:00:00.000Z``) as epoch seconds; None for anything else."""
    if not isinstance(moment, str):
        return None
    try:
        found = datetime.datetime.fromisoformat(moment.replace("Z", "+00:00"))
    except ValueError:
        return None
    aware = found if found.tzinfo else found.replace(tzinfo=datetime.timezone.utc)
    return records.finite(aware.timestamp())


def _intended(status: str, leaving: bool) -> str:
    if leaving or status not in _STATES:
        return ""
    return "stopped" if status in (_OFF, _STOPPING) else "running"


def _per_hour(row: Mapping[str, Any], address_type: str, *rates: str) -> float | None:
    """The sum of these rates and of the static address; None as soon as one of them is unknown."""
    known = [amount(row.get(name)) for name in rates]
    if None in known:
        return None
    return sum(one or 0.0 for one in known) + (STATIC_IP if address_type == STATIC else 0.0)
