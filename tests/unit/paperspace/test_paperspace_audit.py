# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The audit of an account of Paperspace's: machines, and what bills beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.paperspace.api import PaperspaceClient
from machine_market import REGION, MachineMarket

from gpu_tenant import audit
from gpu_tenant.hosts import BoxHost


class World(MachineMarket):
    """An inventory that declares other boxes than the one that was rented, unless it is told that one."""

    declared = "another"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._client = self.machine_client()

    def client(self, box: str) -> PaperspaceClient:  # type: ignore[override]
        return self._client

    @property
    def boxes(self) -> list[BoxHost]:
        facts = {
            "tenant_project": "digits",
            "tenant_state_dir": self.store.root,
            "platform_driver": "paperspace",
            "platform_name": "paperspace",
        }
        return [BoxHost(self.declared, facts)]

    def findings(self) -> dict[str, audit.Finding]:
        return {one.kind: one for one in audit.audit(self, self.boxes).findings}  # type: ignore[arg-type]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_leftovers_are_listed_with_whose_they_are_and_what_they_cost(world: World) -> None:
    """PS9."""
    world.declared = "box-a"
    ours = world.used(deployed=False, public_ip_type="static")
    drive = {"name": "sets", "networkId": "n1", "region": REGION, "size": 250}
    assert world.ask("POST", "/shared-drives", drive)[0] == 200
    assert world.ask("POST", "/snapshots", {"name": "s", "machineId": ours})[0] == 200
    seen = world.findings()
    assert {kind: one.whose for kind, one in seen.items()} == {
        "box": audit.OURS, "static IP": audit.OURS, "snapshot": audit.OURS, "shared drive": audit.FOREIGN,
    }  # fmt: skip
    assert seen["static IP"].per_hour == 0.0045
    assert ours in seen["static IP"].advice
    assert seen["shared drive"].per_hour == pytest.approx(250 * 0.29 / 720)
    assert "deletes it in the console" in seen["shared drive"].advice
    assert seen["snapshot"].per_hour is None


def test_a_machine_that_is_off_bills_its_disk(world: World) -> None:
    """PS1."""
    world.declared = "box-a"
    world.used(deployed=False)
    world.bring("stopped")
    assert world.findings()["box"].per_hour == pytest.approx(100 * 0.10 / 720)


def test_only_our_own_undeclared_machine_is_parked(world: World) -> None:
    stranger = world.make(name="somebody's own", region="ams1", machineType="A100-80G")
    orphan = world.used()
    assert world.show(orphan)["state"] == "ready"
    parked, failures = audit.park_orphans(world, world.boxes)  # type: ignore[arg-type]
    assert ([one.provider_id for one in parked], failures) == ([orphan], [])
    assert (world.show(orphan)["state"], world.show(stranger)["state"]) == ("off", "ready")


def test_looking_changes_nothing(world: World) -> None:
    world.used(public_ip_type="static")
    begun = len(world.sent)
    world.findings()
    assert {method for method, _path in world.sent[begun:]} == {"GET"}
