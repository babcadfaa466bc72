# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Lambda's side of the marketplace in this process, with its faults, on a virtual clock."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from faulty_market import FaultyMarket

from gpu_tenant.marketplace.lambda_cloud.routes import BASE
from gpu_tenant.marketplace.lambda_cloud.terms import FILE, number_of

TYPE, REGION = "gpu_1x_a6000", "us-west-1"  # two machines of it are there
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN0tAKeyThatAnybodyHoldsTheOtherHalfOf0000"
BODY = {
    "region_name": REGION,
    "instance_type_name": TYPE,
    "ssh_key_names": ["laptop"],
    "file_system_names": [],
    "name": "a vm",
}


class VmMarket(FaultyMarket):
    """A tenant of Lambda's side, with one key."""

    def __init__(self, folder: Path, *faults: dict[str, Any], **settings: Any) -> None:
        super().__init__(folder, *faults, **settings)
        self.market.ssh_keys.add(PUBLIC_KEY, "laptop")

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        """The status, and what is in ``data`` or ``error``."""
        reply = self.request(method, BASE + path, body or {})
        if not isinstance(reply.body, dict):
            return reply.status, reply.body
        return reply.status, json.loads(json.dumps(reply.body.get("data", reply.body.get("error", reply.body))))

    def launch(self, **changes: Any) -> str:
        """The id."""
        status, made = self.ask("POST", "/instance-operations/launch", {**BODY, **changes})
        assert status == 200, made
        return str(made["instance_ids"][0])

    def operate(self, verb: str, *vms: str) -> tuple[int, Any]:
        return self.ask("POST", f"/instance-operations/{verb}", {"instance_ids": list(vms)})

    def show(self, vm: str) -> dict[str, Any]:
        status, row = self.ask("GET", f"/instances/{vm}")
        assert status == 200, row
        return dict(row)

    def listed(self) -> list[str]:
        return [row["id"] for row in self.ask("GET", "/instances")[1]]

    def vms(self) -> list[dict[str, Any]]:
        """The account's instances, read past the faults."""
        found = [one for one in self.market.books.state.instances.values() if one.vm is not None and one.live]
        return [{"id": one.id, "phase": one.phase.value, "label": one.label} for one in found]

    def file_system(self, name: str = "data", region: str = REGION) -> dict[str, Any]:
        status, row = self.ask("POST", "/filesystems", {"name": name, "region": region})
        assert status == 200, row
        return dict(row)

    def put(self, file_system: dict[str, Any], name: str, size: int) -> Path:
        """A file of this many bytes, which take no room here."""
        path = self.market.file_systems.folder(number_of(FILE, file_system["id"])) / name
        with path.open("wb") as stream:
            stream.truncate(size)
        return path
