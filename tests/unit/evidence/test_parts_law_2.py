# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Law 2 where a run works on several boxes: one box's part is no copy of another's."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import gate
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity
from evidence_world import World, edit_json
from test_losses import admit, outbid, saw, snapshot

OTHER = BoxIdentity("demo", "box7", 1, "7007")
PARTS = ["box1", "box7"]


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    saw(world, 400)
    admit(world)
    return world


def receipt(world: World, identity: BoxIdentity) -> str:
    return world.store.receipt_path("demo", "r1", identity.box, identity.generation)


def test_law_2_another_part_never_stands_for_a_superseded_box(world: World) -> None:
    snapshot(world, 500, OTHER)
    assert outbid(world).rule == gate.RULE_SUPERSEDED, "without parts a copy from whichever box counts"
    edit_json(receipt(world, OTHER), parts=PARTS)
    assert not outbid(world).allowed
    edit_json(receipt(world, OTHER), parts="box1,box7")
    assert not outbid(world).allowed, "what cannot be read proves nothing"


def test_law_2_its_own_part_does(world: World) -> None:
    snapshot(world, 400, world.identity)
    edit_json(receipt(world, world.identity), parts=PARTS)
    assert records.read_record(receipt(world, world.identity), "receipt")["parts"] == PARTS
    assert outbid(world).rule == gate.RULE_SUPERSEDED
