# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What bodies ask for, as Paperspace's OpenAPI has it (``machines-create``, ``startupScripts-create``, …).

What is not simulated (automatic and initial snapshots, restore points, NVLink, other users) is refused rather than
ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..refusals import MarketError
from .catalogue import REGIONS, region_in
from .terms import SCRIPT, number_of

LEAST_DISK_GB, MOST_DISK_GB = 50, 2000
LONGEST_SHUTDOWN_H = 168
_TAKEN = frozenset({
    "name", "machineType", "templateId", "diskSize", "region", "networkId", "publicIpType", "startOnCreate",
    "startupScriptId", "autoShutdownEnabled", "autoShutdownTimeout", "autoShutdownForce", "autoSnapshotEnabled",
    "takeInitialSnapshot", "emailPassword", "restorePointEnabled", "enableNvlink",
})  # fmt: skip
_NOT_SIMULATED = ("autoSnapshotEnabled", "takeInitialSnapshot", "restorePointEnabled", "enableNvlink")
# A public key in a startup script, quoted or not.
_KEY = re.compile(r"(?:ssh|ecdsa|sk)-[a-z0-9@.-]+ [A-Za-z0-9+/=]{40,}")


@dataclass(frozen=True)
class MachineOrder:
    name: str
    machine_type: str
    template: str
    disk_gb: int
    region: str
    ip_type: str
    network: str
    starts: bool
    script: int
    shutdown_h: float
    shutdown_force: bool


def machine_in(body: Mapping[str, Any]) -> MachineOrder:
    """MarketError (400) that names the field."""
    for name in body:
        if name not in _TAKEN:
            raise bad(f"{name}: not simulated, or no field of a machine")
    for name in _NOT_SIMULATED:
        if body.get(name):
            raise bad(f"{name}: not simulated")
    region = region_in(body.get("region"))
    if not region:
        raise bad(f"region: one of {', '.join(REGIONS)}")
    disk = body.get("diskSize")
    if isinstance(disk, bool) or not isinstance(disk, int) or not LEAST_DISK_GB <= disk <= MOST_DISK_GB:
        raise bad(f"diskSize: {LEAST_DISK_GB} to {MOST_DISK_GB}")
    ip_type = body.get("publicIpType", "none")
    if ip_type not in ("static", "dynamic", "none"):
        raise bad("publicIpType: static, dynamic or none")
    script = _text(body, "startupScriptId", "")
    number = number_of(SCRIPT, script)
    if script and not number:
        raise missing("Startup script not found")
    return MachineOrder(
        name=_text(body, "name"),
        machine_type=_text(body, "machineType"),
        template=_text(body, "templateId"),
        disk_gb=disk,
        region=region,
        ip_type=ip_type,
        network=_text(body, "networkId", ""),
        starts=body.get("startOnCreate", True) is True,
        script=number,
        shutdown_h=_shutdown(body),
        shutdown_force=body.get("autoShutdownForce") is True,
    )


@dataclass(frozen=True)
class ScriptOrder:
    name: str
    script: str
    once: bool


def script_in(body: Mapping[str, Any]) -> ScriptOrder:
    return ScriptOrder(_text(body, "name"), _text(body, "script", most=65536), body.get("isRunOnce") is True)


def keys_in(script: str) -> tuple[str, ...]:
    """The public keys that a startup script lets in."""
    return tuple(_KEY.findall(script))


@dataclass(frozen=True)
class StoredOrder:
    """A snapshot or a template of a machine, or a shared drive (``machine`` empty)."""

    name: str
    machine: str
    region: str = ""
    size_gb: float = 0.0
    network: str = ""


def of_machine_in(body: Mapping[str, Any]) -> StoredOrder:
    return StoredOrder(_text(body, "name"), _text(body, "machineId"))


def drive_in(body: Mapping[str, Any]) -> StoredOrder:
    size = body.get("size")
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MOST_DISK_GB:
        raise bad(f"size: 1 to {MOST_DISK_GB}")
    region = claim_in(body)
    return StoredOrder(_text(body, "name"), "", region, float(size), _text(body, "networkId"))


def claim_in(body: Mapping[str, Any]) -> str:
    """The region in which something is wanted."""
    region = region_in(body.get("region"))
    if not region:
        raise bad(f"region: one of {', '.join(REGIONS)}")
    return region


def bad(message: str) -> MarketError:
    return MarketError(400, "BAD_REQUEST", message)


def missing(message: str) -> MarketError:
    return MarketError(404, "NOT_FOUND", message)


def _shutdown(body: Mapping[str, Any]) -> float:
    if body.get("autoShutdownEnabled") is not True:
        return 0.0
    hours = body.get("autoShutdownTimeout")
    if isinstance(hours, bool) or not isinstance(hours, (int, float)) or not 1 <= hours <= LONGEST_SHUTDOWN_H:
        raise bad(f"autoShutdownTimeout: 1 to {LONGEST_SHUTDOWN_H} hours")
    return float(hours)


def _text(body: Mapping[str, Any], name: str, default: str | None = None, most: int = 255) -> str:
    value = body.get(name, default)
    if not isinstance(value, str) or len(value) > most or (default is None and not value):
        raise bad(f"{name}: must be text of at most {most} characters")
    return value
