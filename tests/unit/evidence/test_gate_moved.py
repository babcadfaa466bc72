# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Law 2 for a box that its platform gives another address at each start: what was harvested and approved before the
move holds after it, and for no other machine at whatever address."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import box_endpoint, machine_mark
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity
from evidence_world import World

MARK = "00112233445566aa"
OLD, NEW = ("connect.westb.seetacloud.com", 30122), ("connect.westc.seetacloud.com", 41007)


def located(world: World, address: tuple[str, int], is_marked: bool = True) -> BoxIdentity:
    """Whose evidence counts for the box that the inventory says is there."""
    record = world.store.read_box("demo", "box1", 2) or {}
    known_as = machine_mark.lasting_id(record) if is_marked else ""
    endpoint = box_endpoint.from_inventory("box1", *address, "root", "", 2, False, known_as)
    return BoxIdentity("demo", "box1", endpoint["generation"], endpoint["provider_id"])


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    machine = {"id": MARK, "instance": {"env": "4a7f45b869-e38322e3"}, "address": "connect.westb.seetacloud.com:30122"}
    made.store.update_box("demo", "box1", 2, provider_id=machine_mark.provider_id(MARK), machine=machine)
    made.identity = located(made, OLD)
    return made.complete()


def test_evidence_and_approval_hold_at_another_address(world: World) -> None:
    assert world.decide().allowed
    world.identity = located(world, NEW)
    assert world.decide().allowed


@pytest.mark.parametrize("address", [OLD, NEW])
def test_they_hold_for_no_machine_with_another_mark_or_none(world: World, address: tuple[str, int]) -> None:
    world.identity = located(world, address, is_marked=False)
    assert not world.decide().allowed
    world.store.update_box("demo", "box1", 2, provider_id=machine_mark.provider_id("ffeeddccbbaa9988"))
    world.identity = located(world, address)
    refused = world.decide()
    assert not refused.allowed
    assert any("another box" in each for each in refused.missing)
