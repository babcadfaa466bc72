# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Machines and what lies beside them, as the rows of Paperspace's OpenAPI (Paperspace/cli ``api/openapi.ts``). Pure.

It names no unit of its rates: they are dollars an hour here.
"""

from __future__ import annotations

import datetime
from typing import Any

from ..engines.base import LOOPBACK
from ..instances import Instance, Phase
from ..offers import Machine
from ..volumes import Volume
from .catalogue import REGIONS
from .terms import DRIVE, EVENT, MACHINE, SCRIPT, SNAPSHOT, TEMPLATE, CoreTerms, id_of

_GIB = 1024**3
_STATE = {
    Phase.PROVISIONING: "provisioning", Phase.LOADING: "starting", Phase.REBOOTING: "restarting",
    Phase.RECYCLING: "restarting", Phase.RUNNING: "ready",
}  # fmt: skip


def state_of(instance: Instance) -> str:
    """Whatever else keeps a box down, its machine is off, which is the only state that bills no compute."""
    return _STATE.get(instance.phase, "off")


def machine_row(instance: Instance, core: CoreTerms, machine: Machine, state: str) -> dict[str, Any]:
    off = state == "off"
    address = None if core.ip_type == "none" or (off and core.ip_type == "dynamic") else LOOPBACK
    row: dict[str, Any] = {
        "id": id_of(MACHINE, instance.id),
        "name": core.name,
        "state": state,
        "os": core.template,
        "machineType": core.machine_type,
        "agentType": "LinuxHeadless",
        "cpus": machine.cpu_cores,
        "ram": machine.cpu_ram * 1024**2,
        "storageTotal": core.disk_gb * _GIB,
        "storageUsed": 0,
        "accelerators": [
            {"name": machine.model.name, "memory": machine.card.memory_mb * 1024**2, "count": core.gpus},
        ],
        "region": REGIONS[core.region],
        "privateIp": LOOPBACK,
        "networkId": core.network or None,
        "publicIp": address,
        "publicIpType": core.ip_type,
        "autoShutdownEnabled": core.shutdown_h > 0,
        "autoShutdownTimeout": core.shutdown_h or None,
        "autoShutdownForce": core.shutdown_force,
        "autoSnapshotEnabled": False,
        "autoSnapshotFrequency": None,
        "autoSnapshotSaveCount": None,
        "restorePointEnabled": False,
        "restorePointFrequency": None,
        "restorePointSnapshotId": None,
        "updatesPending": False,
        "usageRate": core.price,
        "storageRate": core.running_disk_rate,
        "dtCreated": utc(instance.created_at),
        "dtModified": utc(core.events[-1][1] if core.events else instance.created_at),
        "dtDeleted": None if instance.live or instance.destroyed_at is None else utc(instance.destroyed_at),
        "reservation": None,
    }
    if state == "ready":
        # Paperspace's own answer has no port, for it is always 22. The boxes of one machine share its address.
        row["sshPort"] = instance.ports[0]
    return row


def event_row(instance: Instance, place: int, name: str, at: float) -> dict[str, Any]:
    told = utc(at)
    return {
        "id": f"{id_of(EVENT, instance.id)}{place}",
        "name": name,
        "state": "done",
        "machineId": id_of(MACHINE, instance.id),
        "dtCreated": told,
        "dtStarted": told,
        "dtFinished": told,
        "error": None,
    }


def event_rows(instance: Instance, core: CoreTerms) -> list[dict[str, Any]]:
    return [event_row(instance, place, name, at) for place, (name, at) in enumerate(core.events)]


def script_row(number: int, script: dict[str, Any], users: list[int]) -> dict[str, Any]:
    """Without the script itself, which the API never shows again."""
    return {
        "id": id_of(SCRIPT, number),
        "name": script["name"],
        "description": None,
        "isEnabled": True,
        "isRunOnce": script["once"],
        "assignedMachineIds": [id_of(MACHINE, user) for user in users],
        "dtCreated": utc(script["created_at"]),
        "dtDeleted": None,
    }


def address_row(stored: Volume) -> dict[str, Any]:
    row = {"ip": stored.name, "region": REGIONS[stored.place], "dtCreated": utc(stored.created_at)}
    return {**row, "assignedMachineId": id_of(MACHINE, stored.owner)} if stored.owner else row


def snapshot_row(stored: Volume) -> dict[str, Any]:
    machine = id_of(MACHINE, stored.owner)
    return {"id": id_of(SNAPSHOT, stored.id), "name": stored.name, "machineId": machine, "isAutoSnapshot": False}


def drive_row(stored: Volume) -> dict[str, Any]:
    return {
        "id": id_of(DRIVE, stored.id),
        "name": stored.name,
        "region": REGIONS[stored.place],
        "networkId": "n0000000001",
        "size": round(stored.size_gb) * _GIB,
        "mountPoint": f"//10.0.0.2/{stored.name}",
        "username": "tenant",
        "password": "shown-to-whoever-asks",
        "dtCreated": utc(stored.created_at),
        "dtDeleted": None,
    }


def template_row(stored: Volume, types: list[str]) -> dict[str, Any]:
    return {
        "id": id_of(TEMPLATE, stored.id),
        "name": stored.name,
        "agentType": "LinuxHeadless",
        "operatingSystemLabel": "Ubuntu 22.04",
        "region": REGIONS[stored.place],
        "defaultSizeGb": round(stored.size_gb),
        "availableMachineTypes": [{"machineTypeLabel": kind, "isAvailable": True} for kind in types],
        "parentMachineId": id_of(MACHINE, stored.owner),
        "dtCreated": utc(stored.created_at),
        "dtDeleted": None,
    }


def utc(moment: float) -> str:
    told = datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat(timespec="milliseconds")
    return told.replace("+00:00", "Z")
