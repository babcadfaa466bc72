# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""RunPod's side of the marketplace in this process, with its faults, on a virtual clock."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import approvals, seal_reading
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.runpod.actions import PodAccount
from ansible_collections.tenant.gpu.plugins.module_utils.runpod.api import RunpodClient
from ansible_collections.tenant.gpu.plugins.module_utils.runpod.desired import Desire, converge
from ansible_collections.tenant.gpu.plugins.module_utils.runpod.rental import PodOrder
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity
from faulty_market import URL, FaultyMarket
from wire_market import KEY

from gpu_tenant.marketplace.replies import Reply

GPU = "NVIDIA GeForce RTX 4090"
BODY = {
    "name": "a pod",
    "imageName": "runpod/pytorch:2.8.0",
    "gpuTypeIds": [GPU],
    "cloudType": "COMMUNITY",
    "supportPublicIp": True,
    "containerDiskInGb": 30,
    "volumeInGb": 50,
    "ports": ["22/tcp", "8000/tcp", "8888/http"],
}
ORDER = PodOrder(
    "digits", "pod-a", image="runpod/pytorch:2.8.0", gpu_types=(GPU,), cloud_type="COMMUNITY", volume_gb=36,
    container_gb=72, price_cap=2.0, wait_s=120.0,
)  # fmt: skip


class PodMarket(FaultyMarket):
    """A tenant of RunPod's side."""

    def __init__(self, folder: Path, *faults: dict[str, Any], version: str = "/v1", **settings: Any) -> None:
        super().__init__(folder, *faults, **settings)
        self.version = version
        # Paths below these are answered with these statuses: versions that are not there.
        self.not_served: dict[str, int] = {}

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None, query: str = "") -> tuple[int, Any]:
        reply = self.request(method, path, body or {}, query)
        return reply.status, reply.body

    def request(self, method: str, path: str, body: dict[str, Any], query: str = "", key: str = KEY) -> Reply:
        for prefix, status in self.not_served.items():
            if path.startswith(prefix):
                return Reply(status, {"title": "not here", "status": status, "detail": f"no {prefix}"})
        return super().request(method, path, body, query, key)

    def make(self, **changes: Any) -> dict[str, Any]:
        status, row = self.ask("POST", "/v1/pods", {**BODY, **changes})
        assert status == 201, row
        return dict(json.loads(json.dumps(row)))

    def show(self, pod: str) -> dict[str, Any]:
        status, row = self.ask("GET", f"/v1/pods/{pod}")
        assert status == 200, row
        return dict(row)

    def pods(self) -> list[dict[str, Any]]:
        """The account's pods, read past the faults."""
        found = [one for one in self.market.books.state.instances.values() if one.pod is not None and one.live]
        return [{"id": one.id, "phase": one.phase.value, "label": one.label} for one in found]

    # -- the driver ----------------------------------------------------------------------------------------------

    def pod_client(self) -> RunpodClient:
        return RunpodClient(
            KEY, f"{URL}{self.version}", opener=self, sleep=self.sleep, clock=self.clock, jitter=lambda: 1.0
        )

    def account(self, **changes: Any) -> PodAccount:
        return PodAccount(self.pod_client(), self.store, **{"data_dir": "/workspace", **changes})

    def bring(self, state: str, check: bool = False, gpus: int = 1, provider_id: str = "", **order: Any) -> Any:
        """What ``runpod_pod`` returns; in check mode nothing that is sent changes anything."""
        begun = len(self.sent)
        result = converge(self.account(), Desire(state, replace(ORDER, **order), gpus, provider_id), check)
        if check:
            assert {method for method, _path in self.sent[begun:]} <= {"GET"}
        return result

    def used(self, deployed: bool = True) -> str:
        """A pod of ours that something was deployed on; its id."""
        made = self.bring("started")["pod"]
        if deployed:
            self.store.update_box("digits", "pod-a", made["generation"], deploy_started_at=records.utc_now())
        return str(made["provider_id"])

    def identity(self) -> BoxIdentity:
        record = self.store.read_box("digits", "pod-a", 1) or {}
        return BoxIdentity("digits", "pod-a", 1, str(record["provider_id"]))

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
