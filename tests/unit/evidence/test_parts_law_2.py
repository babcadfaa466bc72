# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Law 2 where a run works on several boxes: one box's part is no copy of another's."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import gate, receipts
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity
from evidence_world import World
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


def names_parts(world: World, identity: BoxIdentity, parts: object) -> None:
    """As the harvest of a part writes it, the journal's line with it: an edit by hand would count nowhere."""
    record = records.read_record(receipt(world, identity), "receipt")
    receipts.write(world.store, identity, {**record, "parts": parts})


def test_law_2_another_part_never_stands_for_a_superseded_box(world: World) -> None:
    snapshot(world, 500, OTHER)
    assert outbid(world).rule == gate.RULE_SUPERSEDED, "without parts a copy from whichever box counts"
    names_parts(world, OTHER, PARTS)
    assert not outbid(world).allowed
    names_parts(world, OTHER, "box1,box7")
    assert not outbid(world).allowed, "what cannot be read proves nothing"


def test_law_2_its_own_part_does(world: World) -> None:
    snapshot(world, 400, world.identity)
    names_parts(world, world.identity, PARTS)
    assert outbid(world).rule == gate.RULE_SUPERSEDED
