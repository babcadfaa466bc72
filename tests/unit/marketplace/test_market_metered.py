# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the provider's copies move is billed: at both ends, once, and no more than was moved."""

from __future__ import annotations

import pytest
from copy_world import CLOUD, World

SIZE = 3_000_000


@pytest.fixture
def boxes(world: World) -> tuple[int, int]:
    first, second = world.rent(), world.rent()
    (world.disk(first) / "workspace/file").write_bytes(b"x" * SIZE)
    return first, second


def moved(world: World, number: int) -> dict[str, int]:
    """Bytes by direction, as the bill has them."""
    bill = world.call("GET", "/control/bill")[1]
    (line,) = [one for one in bill["instances"] if one["id"] == number]
    kinds = {item["type"]: item for item in line["items"]}
    for kind in ("bwd", "bwu"):
        assert kinds[kind]["amount"] == pytest.approx(kinds[kind]["quantity"] * kinds[kind]["rate"])
    return {kind: round(kinds[kind]["quantity"] * 1e9) for kind in ("bwd", "bwu")}


def test_a_copy_between_boxes_is_an_upload_here_and_a_download_there(world: World, boxes: tuple[int, int]) -> None:
    source, dest = boxes
    for words in ("1 files", " 0 files"):
        world.copy(source, "/workspace/", dest, "/workspace/")
        assert words in world.said(dest, words)
        assert moved(world, source) == {"bwd": 0, "bwu": SIZE}, "a second copy finds nothing to send"
        assert moved(world, dest) == {"bwd": SIZE, "bwu": 0}
    machine = world.market.books.machine_of(source)
    assert world.market.money.charges()[0].items[-1].rate == machine.up_cost


def test_a_cloud_copy_is_metered_at_its_box_and_a_dry_run_nowhere(world: World, boxes: tuple[int, int]) -> None:
    box, _other = boxes
    selected = world.call("GET", "/api/v0/users/cloud_integrations/")[1][0]["id"]
    body = {"src": "/workspace/", "dst": "/runs/", "instance_id": str(box), "selected": str(selected)}
    body["transfer"] = "Instance To Cloud"
    world.call("POST", CLOUD, {**body, "flags": ["--dry-run"]})
    world.said(box, "Finished")
    assert moved(world, box) == {"bwd": 0, "bwu": 0}
    world.call("POST", CLOUD, {**body, "dst": "/again/"})
    world.said(box, "/again/, 1 files")
    assert moved(world, box) == {"bwd": 0, "bwu": SIZE}


def test_a_copy_that_fails_on_the_way_bills_what_it_moved(world: World, boxes: tuple[int, int]) -> None:
    source, dest = boxes
    world.call("POST", "/control/copy_fault", {"kind": "copy_fails"})
    world.copy(source, "/workspace/", dest, "/workspace/")
    assert "failed" in world.said(dest, "failed")
    assert moved(world, dest) == {"bwd": SIZE, "bwu": 0}
