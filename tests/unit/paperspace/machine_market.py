# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Paperspace's side of the marketplace in this process, with its faults, on a virtual clock."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from typing import Any, ClassVar

from ansible_collections.tenant.gpu.plugins.module_utils import approvals, seal_reading
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.paperspace.actions import MachineAccount
from ansible_collections.tenant.gpu.plugins.module_utils.paperspace.api import PaperspaceClient
from ansible_collections.tenant.gpu.plugins.module_utils.paperspace.desired import Desire, converge
from ansible_collections.tenant.gpu.plugins.module_utils.paperspace.rental import MachineOrder
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity
from faulty_market import URL, FaultyMarket
from wire_market import KEY

from gpu_tenant.marketplace.paperspace.routes import BASE
from gpu_tenant.marketplace.paperspace.terms import MACHINE, number_of

TYPE, REGION, TEMPLATE = "A6000", "ca1", "t0nspur5"  # two machines of it are there
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN0tAKeyThatAnybodyHoldsTheOtherHalfOf0000 ada"
BODY = {
    "name": "a machine",
    "machineType": TYPE,
    "templateId": TEMPLATE,
    "diskSize": 100,
    "region": REGION,
    "publicIpType": "dynamic",
    "startOnCreate": True,
}
ORDER = MachineOrder(
    "digits", "box-a", machine_types=(TYPE,), region=REGION, template=TEMPLATE, public_key=PUBLIC_KEY, disk_gb=100,
    price_cap=3.0, wait_s=300.0,
)  # fmt: skip


class MachineMarket(FaultyMarket):
    """A tenant of Paperspace's side."""

    NOT_THERE: ClassVar = {"code": "NOT_FOUND", "message": "Machine not found"}

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None, query: str = "") -> tuple[int, Any]:
        reply = self.request(method, BASE + path, body or {}, query)
        return reply.status, json.loads(json.dumps(reply.body))

    def make(self, **changes: Any) -> str:
        """The id."""
        status, made = self.ask("POST", "/machines", {**BODY, **changes})
        assert status == 200, made
        return str(made["data"]["id"])

    def show(self, machine: str) -> dict[str, Any]:
        status, row = self.ask("GET", f"/machines/{machine}")
        assert status == 200, row
        return dict(row)

    def do(self, machine: str, verb: str) -> tuple[int, Any]:
        if verb == "delete":
            return self.ask("DELETE", f"/machines/{machine}")
        return self.ask("PATCH", f"/machines/{machine}/{verb}")

    def items(self, path: str) -> list[dict[str, Any]]:
        status, page = self.ask("GET", path)
        assert status == 200, page
        return list(page["items"])

    def listed(self) -> list[str]:
        return [row["id"] for row in self.items("/machines")]

    def machines(self) -> list[dict[str, Any]]:
        """The team's machines, read past the faults."""
        found = [one for one in self.market.books.state.instances.values() if one.core is not None and one.live]
        return [{"id": one.id, "phase": one.phase.value, "label": one.label} for one in found]

    def number(self, machine: str) -> int:
        return number_of(MACHINE, machine)

    # -- the driver ----------------------------------------------------------------------------------------------

    def machine_client(self) -> PaperspaceClient:
        return PaperspaceClient(KEY, URL + BASE, opener=self, sleep=self.sleep, clock=self.clock, jitter=lambda: 1.0)

    def account(self, **changes: Any) -> MachineAccount:
        return MachineAccount(self.machine_client(), self.store, **changes)

    def bring(self, state: str, check: bool = False, provider_id: str = "", keeps: Any = None, **order: Any) -> Any:
        """What ``paperspace_machine`` returns; in check mode nothing that is sent changes anything."""
        begun = len(self.sent)
        desire = Desire(state, replace(ORDER, **order), provider_id)
        result = converge(self.account(keeps=keeps or {}), desire, check)
        if check:
            assert {method for method, _path in self.sent[begun:]} <= {"GET"}
        return result

    def creates(self) -> int:
        return self.count("POST", "/machines$")

    def deletions(self) -> int:
        return self.count("DELETE", "/machines/")

    def used(self, deployed: bool = True, **order: Any) -> str:
        """A machine of ours that something was deployed on; its id."""
        made = self.bring("started", **order)["machine"]
        if deployed:
            self.store.update_box("digits", "box-a", made["generation"], deploy_started_at=records.utc_now())
        return str(made["provider_id"])

    def identity(self) -> BoxIdentity:
        record = self.store.read_box("digits", "box-a", 1) or {}
        return BoxIdentity("digits", "box-a", 1, str(record["provider_id"]))

    def seal(self, ago_s: float = 0.0) -> None:
        """A reading of an empty, sealed box, made so many seconds ago."""
        identity = self.identity()
        read_at = records.utc_text(records.parse_utc(records.utc_now()) - datetime.timedelta(seconds=ago_s))
        promises = {
            name: dict(identity.as_dict(), schema=records.schema(name), epoch=1, runs=[]) for name in ("seal", "index")
        }
        answer = dict(promises, live_cells=[], unlisted_runs=[], checkpoints={}, durable=[], boot_id="b", problems=[])
        seal_reading.save(self.store, identity, seal_reading.as_record(identity, read_at, answer))

    def approve(self) -> str:
        who = {"approver": "ada", "source": {"kind": "cli", "ref": ""}, "reason": "it may not bill till morning"}
        return str(approvals.give(self.store, self.identity(), "destroy", {"kind": "complete_receipt"}, **who)["id"])
