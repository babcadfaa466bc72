# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The audit: everything that bills is shown once, with whose it is; only what is ours and undeclared is stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.stamp import new_stamp
from ansible_collections.tenant.gpu.plugins.module_utils.vast import volumes
from ansible_collections.tenant.gpu.plugins.module_utils.vast.api import VastClient
from volume_world import World as VolumeWorld

from gpu_tenant import audit
from gpu_tenant.hosts import BoxHost

RESTS = {"actual_status": "exited", "intended_status": "stopped", "cur_state": "stopped", "next_state": "stopped"}


class World(VolumeWorld):
    """An account with what may be on one, and an inventory of two projects that rent there."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._client = self.market.client()
        self.boxes = [self.host("vision", "digits-1"), self.host("audio", "speech-1")]

    def host(self, project: str, name: str, **changes: Any) -> BoxHost:
        facts = {"tenant_project": project, "tenant_state_dir": self.store.root, "platform_driver": "vast"}
        return BoxHost(name, {**facts, **changes})

    def client(self, box: str) -> VastClient:
        return self._client

    def rented(self, project: str, box: str, generation: int = 1, **row: Any) -> str:
        return str(self.market.add(str(new_stamp(project, box, generation)), **row)["id"])

    def seen(self) -> dict[str, str]:
        """{provider id: whose}, each shown once."""
        findings = self.audit().findings
        told = {each.provider_id: each.whose for each in findings}
        assert len(told) == len(findings)
        return told

    def audit(self) -> audit.Audit:
        return audit.audit(self, self.boxes)  # type: ignore[arg-type]

    def park(self) -> tuple[list[audit.Finding], list[TenantFailure]]:
        return audit.park_orphans(self, self.boxes)  # type: ignore[arg-type]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_each_box_is_somebodys(world: World) -> None:
    expected = {
        world.rented("vision", "digits-1", 1): audit.SUPERSEDED,
        world.rented("vision", "digits-1", 2): audit.OURS,
        world.rented("audio", "speech-1"): audit.OURS,
        world.rented("audio", "digits-1"): audit.ORPHAN,
        world.rented("vision", "forgotten"): audit.ORPHAN,
        world.rented("others", "digits-1"): audit.OTHER_PROJECT,
        str(world.market.add("my notebook")["id"]): audit.FOREIGN,
        str(world.market.add(None)["id"]): audit.FOREIGN,
    }
    assert world.seen() == expected


def test_volumes_bill_too(world: World) -> None:
    ours = world.add(str(volumes.new_stamp("vision", "data-1", 1)))
    strange = world.add("somebody's")
    assert world.seen() == {f"V.{ours['id']}": audit.OURS, f"V.{strange['id']}": audit.FOREIGN}


def test_what_was_rented_and_is_not_listed_is_said(world: World) -> None:
    gone = {"provider_id": "4711", "stamp": str(new_stamp("vision", "digits-1", 1)), "destroyed_at": None}
    world.store.update_box("vision", "digits-1", 1, **gone)
    world.store.update_box("vision", "digits-1", 2, provider_id="4712", destroyed_at="2026-11-20T00:00:00Z")
    assert world.seen() == {"4711": audit.MISSING}


def test_the_price_is_what_it_bills_in_its_state(world: World) -> None:
    runs = world.rented("vision", "forgotten", dph_total=0.5)
    rests = world.rented("vision", "left", dph_total=0.5, **RESTS)
    silent = world.rented("vision", "silent", dph_total=None)
    seen = world.audit()
    prices = {each.provider_id: each.per_hour for each in seen.findings}
    assert prices == {runs: 0.5, rests: pytest.approx(0.18 * 20 / 720), silent: None}
    assert seen.words() == "3 of ours that the inventory does not count on: $0.5050 an hour and 1 of unknown price"


def test_a_stranger_names_no_colour_for_a_terminal(world: World) -> None:
    world.market.add("\x1b[31mgt1/vision/digits-1/g1")
    (found,) = world.audit().findings
    assert found.whose == audit.FOREIGN
    assert found.name.isprintable()


def test_half_an_audit_is_none(world: World) -> None:
    world.rented("vision", "forgotten")
    world.market.fault("GET", r"/api/v1/instances/", times=99, answer=(500, {"msg": "down"}, {}))
    with pytest.raises(TenantFailure) as refused:
        world.audit()
    assert refused.value.kind == "provider"


def test_a_box_without_an_api_is_named(world: World) -> None:
    world.boxes.append(world.host("vision", "lab-1", platform_driver="", platform_name="ssh"))
    assert [sentence.split(":")[0] for sentence in world.audit().unseen] == ["lab-1"]


def test_looking_changes_nothing(world: World) -> None:
    world.rented("vision", "forgotten")
    world.audit()
    assert [method for method, _path, _body in world.market.requests if method != "GET"] == []
    assert Journal(world.store).lines() == []


def test_parked_is_what_is_ours_and_undeclared_and_nothing_else(world: World) -> None:
    orphan = world.rented("vision", "forgotten")
    for others in (("vision", "digits-1"), ("others", "digits-1")):
        world.rented(*others)
    world.market.add("my notebook")
    parked, failures = world.park()
    assert ([each.provider_id for each in parked], failures) == ([orphan], [])
    assert world.market.sent("PUT", f"/instances/{orphan}/") == [{"state": "stopped"}]
    assert len([one for one in world.market.requests if one[0] != "GET"]) == 1
    assert [line["verb"] for line in Journal(world.store).lines() if line["kind"] == "effect"] == ["stop"]
    assert {row["cur_state"] for row in world.market.instances.values()} == {"running", "stopped"}


def test_one_that_cannot_be_parked_keeps_none_of_the_others(world: World) -> None:
    first, second = world.rented("vision", "forgotten-1"), world.rented("vision", "forgotten-2")
    world.market.fault("PUT", f"/instances/{first}/", times=99, answer=(400, {"success": False, "msg": "no"}, {}))
    parked, failures = world.park()
    assert ([each.provider_id for each in parked], len(failures)) == ([second], 1)
