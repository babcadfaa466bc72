# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Instances as rows of the schema ``Instance`` (Lambda's OpenAPI 1.8.3, cloud.lambda.ai/api/v1/openapi.json). Pure."""

from __future__ import annotations

import hashlib
from typing import Any

from ..engines.base import LOOPBACK
from ..instances import Instance, Phase
from .catalogue import region_row, type_row
from .terms import FILE, INSTANCE, LOGIN, VmTerms, id_of

# A box whose processes ended by themselves is one that was shut down from inside: its row says unhealthy (the console
# says Alert), and it bills on. There is no state of rest, so that whatever else keeps a box down looks the same.
_STATUS = {
    Phase.PROVISIONING: "booting", Phase.LOADING: "booting", Phase.REBOOTING: "booting", Phase.RECYCLING: "booting",
    Phase.RUNNING: "active", Phase.UNLOADED: "terminating", Phase.GONE: "terminated",
}  # fmt: skip
_BLOCKED = {
    "booting": ("vm-has-not-launched", "The instance has not launched yet."),
    "terminating": ("vm-is-terminating", "The instance is terminating."),
    "terminated": ("vm-is-terminating", "The instance is terminated."),
}
_ACTIONS = ("migrate", "rebuild", "restart", "cold_reboot", "terminate")


def status_of(instance: Instance, unheard: bool) -> str:
    """:param unheard: its host is lost."""
    status = _STATUS.get(instance.phase, "unhealthy")
    return "unhealthy" if unheard and status in ("booting", "active") else status


def instance_row(instance: Instance, vm: VmTerms, names: dict[int, str], status: str, login: str) -> dict[str, Any]:
    """:param names: of the file systems that it uses.
    :param login: whom its engine lets in.
    """
    token = hashlib.sha256(instance.api_key.encode()).hexdigest()[:32]
    row: dict[str, Any] = {
        "id": id_of(INSTANCE, instance.id),
        "status": status,
        "ssh_key_names": list(vm.keys),
        "file_system_names": [names[number] for number, _path in vm.mounts if number in names],
        "region": region_row(vm.region),
        "instance_type": type_row(vm.instance_type),
        "actions": _actions(status),
        "tags": [{"key": key, "value": value} for key, value in vm.tags],
    }
    if vm.name:
        row["name"] = vm.name
    if vm.mounts:
        row["file_system_mounts"] = [
            {"mount_point": path, "file_system_id": id_of(FILE, number)} for number, path in vm.mounts
        ]
    if instance.ever_ran and status != "terminated":
        shown = {"ip": LOOPBACK, "private_ip": LOOPBACK, "hostname": vm.hostname or LOOPBACK}
        row.update(shown, jupyter_token=token, jupyter_url=f"https://jupyter.invalid/?token={token}")
        # Lambda's own answer has no port, for it is always 22. The boxes of one machine share its address.
        row["ssh_port"] = instance.ports[0]
        if login != LOGIN:
            # Nor a login: an engine without users lets in its own.
            row["ssh_user"] = login
    return row


def _actions(status: str) -> dict[str, Any]:
    if status not in _BLOCKED:
        return {name: {"available": True} for name in _ACTIONS}
    code, why = _BLOCKED[status]
    blocked = {"available": False, "reason_code": code, "reason_description": why}
    allowed = ("terminate",) if status == "booting" else ()
    return {name: {"available": True} if name in allowed else dict(blocked) for name in _ACTIONS}
