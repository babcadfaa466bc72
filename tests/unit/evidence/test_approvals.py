# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Approvals are given once, found while they hold, spent once, and their edits show."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import approvals
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity
from evidence_world import DESTROY, IDENTITY, World, edit_json, later


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_an_approval_is_written_and_its_hash_journalled(world: World) -> None:
    approval_id = world.approve()
    record = records.read_record(world.store.approval_path(approval_id), "approval")
    (line,) = [line for line in Journal(world.store).lines() if line["kind"] == "approval"]
    assert line["sha256"] == approvals.fingerprint(record)
    assert line["approval_id"] == approval_id
    assert record["expires_at"] == later(world.now, approvals.DEFAULT_TTL_S)
    assert record["used_at"] is None


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"binds": {}}, "bound to"),
        ({"binds": {"kind": "everything"}}, "bound to"),
        ({"binds": {"kind": "digest"}}, "digest"),
        ({"binds": {"kind": "digest", "digests": {"r1": "x"}}}, "digest"),
        ({"binds": {"kind": "loss"}}, "lost"),
        ({"approver": " "}, "approver"),
        ({"reason": ""}, "reason"),
        ({"ttl_s": 0}, "0 s"),
        ({"verb": "../destroy"}, "verb"),
        ({"identity": BoxIdentity("demo", "box1", 0, "4711")}, "generation"),
        ({"identity": BoxIdentity("demo", "box1", 1, "")}, "provider id"),
    ],
)
def test_an_ambiguous_approval_is_not_given(world: World, changes: dict[str, Any], word: str) -> None:
    with pytest.raises(TenantFailure, match=word):
        world.approve(**changes)
    assert world.store.approvals() == []


def test_find_returns_what_holds_now_oldest_first(world: World) -> None:
    older = world.approve(now=later(world.now, -60))
    newer = world.approve()
    world.approve(verb="recycle")
    world.approve(identity=BoxIdentity("demo", "box1", 3, "4711"))
    world.approve(ttl_s=1, now=later(world.now, -60))
    Path(world.store.approval_path("ap-broken")).write_text("{")
    found = approvals.find(world.store, IDENTITY, DESTROY, world.now)
    assert [record["id"] for record in found] == [older, newer]
    edit_json(world.store.approval_path(older), reason="because I say so")
    approvals.mark_used(world.store, newer)
    assert approvals.find(world.store, IDENTITY, DESTROY, world.now) == []


@pytest.mark.parametrize("damage", ["{", '{"schema": "gpu-tenant/approval/v2"}', None])
def test_spending_what_is_not_there_names_it_and_the_fix(world: World, damage: str | None) -> None:
    path = Path(world.store.approval_path("ap-x"))
    path.parent.mkdir(parents=True)
    if damage is not None:
        path.write_text(damage)
    with pytest.raises(TenantFailure, match="ap-x") as caught:
        approvals.mark_used(world.store, "ap-x")
    assert "gpu-tenant approve" in caught.value.fix


def test_law_2_two_processes_cannot_spend_one_approval(world: World) -> None:
    approval_id = world.approve()
    outcomes: list[str] = []
    barrier = threading.Barrier(4)

    def spend() -> None:
        barrier.wait(timeout=20)
        try:
            approvals.mark_used(world.store, approval_id)
            outcomes.append("spent")
        except TenantFailure:
            outcomes.append("refused")

    threads = [threading.Thread(target=spend) for _unused in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert sorted(outcomes) == ["refused", "refused", "refused", "spent"]
