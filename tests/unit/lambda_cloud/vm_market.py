# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Lambda's side of the marketplace in this process, with its faults, on a virtual clock."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from ansible_collections.tenant.gpu.plugins.module_utils import approvals, seal_reading
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.lambda_cloud.actions import VmAccount
from ansible_collections.tenant.gpu.plugins.module_utils.lambda_cloud.api import LambdaClient
from ansible_collections.tenant.gpu.plugins.module_utils.lambda_cloud.desired import Desire, converge
from ansible_collections.tenant.gpu.plugins.module_utils.lambda_cloud.rental import VmOrder
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity
from faulty_market import URL, FaultyMarket
from wire_market import KEY

from gpu_tenant.marketplace import instances
from gpu_tenant.marketplace.lambda_cloud.routes import BASE
from gpu_tenant.marketplace.lambda_cloud.terms import FILE, INSTANCE, number_of

TYPE, REGION = "gpu_1x_a6000", "us-west-1"  # two machines of it are there
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN0tAKeyThatAnybodyHoldsTheOtherHalfOf0000"
BODY = {
    "region_name": REGION,
    "instance_type_name": TYPE,
    "ssh_key_names": ["laptop"],
    "file_system_names": [],
    "name": "a vm",
}
ORDER = VmOrder(
    "digits", "box-a", instance_types=(TYPE,), ssh_key="laptop", price_cap=2.0, capacity_wait_s=600.0, wait_s=300.0
)


class VmMarket(FaultyMarket):
    """A tenant of Lambda's side, with one key."""

    NOT_THERE: ClassVar = {"error": {"code": "global/object-does-not-exist", "message": "no such instance"}}

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

    def shut_down(self, vm: str) -> None:
        """From inside, which no API can do."""
        books = self.market.books
        books.put(instances.exited(books.instance(number_of(INSTANCE, vm))))

    # -- the driver ----------------------------------------------------------------------------------------------

    def vm_client(self) -> LambdaClient:
        return LambdaClient(KEY, URL + BASE, opener=self, sleep=self.sleep, clock=self.clock, jitter=lambda: 1.0)

    def account(self, **changes: Any) -> VmAccount:
        return VmAccount(self.vm_client(), self.store, **changes)

    def bring(
        self, state: str, check: bool = False, provider_id: str = "", restart_unhealthy: bool = False, **order: Any
    ) -> Any:
        """What ``lambda_instance`` returns; in check mode nothing that is sent changes anything."""
        begun = len(self.sent)
        desire = Desire(state, replace(ORDER, **order), provider_id, restart_unhealthy)
        result = converge(self.account(), desire, check)
        if check:
            assert {method for method, _path in self.sent[begun:]} <= {"GET"}
        return result

    def launches(self) -> int:
        return self.count("POST", "/instance-operations/launch$")

    def terminations(self) -> int:
        return self.count("POST", "/instance-operations/terminate$")

    def used(self, deployed: bool = True, **order: Any) -> str:
        """An instance of ours that something was deployed on; its id."""
        made = self.bring("started", **order)["instance"]
        if deployed:
            self.store.update_box("digits", "box-a", made["generation"], deploy_started_at=records.utc_now())
        return str(made["provider_id"])

    def identity(self) -> BoxIdentity:
        record = self.store.read_box("digits", "box-a", 1) or {}
        return BoxIdentity("digits", "box-a", 1, str(record["provider_id"]))

    def seal(self) -> None:
        """A reading of an empty, sealed box, from now."""
        identity = self.identity()
        promises = {
            name: dict(identity.as_dict(), schema=records.schema(name), epoch=1, runs=[]) for name in ("seal", "index")
        }
        answer = dict(promises, live_cells=[], unlisted_runs=[], checkpoints={}, durable=[], boot_id="b", problems=[])
        seal_reading.save(self.store, identity, seal_reading.as_record(identity, records.utc_now(), answer))

    def approve(self) -> str:
        who = {"approver": "ada", "source": {"kind": "cli", "ref": ""}, "reason": "it may not bill till morning"}
        return str(approvals.give(self.store, self.identity(), "destroy", {"kind": "complete_receipt"}, **who)["id"])
