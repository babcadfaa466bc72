# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Approvals are given once, found while they hold, spent once, and their edits show."""

from __future__ import annotations

import os
import subprocess
import sys
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
        ({"ttl_s": approvals.MOST_TTL_S + 1}, "90 days"),
        ({"ttl_s": 9999999 * 86400}, "90 days"),
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
    with approvals.spending(world.store, newer):
        pass
    assert approvals.find(world.store, IDENTITY, DESTROY, world.now) == []


@pytest.mark.parametrize("damage", ["{", '{"schema": "gpu-tenant/approval/v2"}', None])
def test_spending_what_is_not_there_names_it_and_the_fix(world: World, damage: str | None) -> None:
    path = Path(world.store.approval_path("ap-x"))
    path.parent.mkdir(parents=True)
    if damage is not None:
        path.write_text(damage)
    with pytest.raises(TenantFailure, match="ap-x") as caught, approvals.spending(world.store, "ap-x"):
        pytest.fail("nothing was there to be spent")
    assert "gpu-tenant approve" in caught.value.fix


def test_law_2_two_processes_cannot_spend_one_approval(world: World) -> None:
    approval_id = world.approve()
    outcomes: list[str] = []
    barrier = threading.Barrier(4)

    def spend() -> None:
        barrier.wait(timeout=600)
        try:
            with approvals.spending(world.store, approval_id):
                outcomes.append("spent")
        except TenantFailure:
            outcomes.append("refused")

    threads = [threading.Thread(target=spend) for _unused in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=600)
    assert sorted(outcomes) == ["refused", "refused", "refused", "spent"]


def test_law_2_a_crash_between_verb_and_mark_leaves_a_claim(world: World) -> None:
    """A destroy of that very machine may take it up again; a verb whose repetition would do harm may not."""
    for verb, usable in (("destroy", True), ("recycle", False)):
        approval_id = world.approve(verb=verb)
        with pytest.raises(KeyboardInterrupt), approvals.spending(world.store, approval_id):
            raise KeyboardInterrupt
        (loaded,) = [found for found in approvals.load_all(world.store) if found.approval_id == approval_id]
        why = approvals.why_unusable(loaded, IDENTITY, verb, world.now)
        assert (why == "") is usable, why
    with approvals.spending(world.store, world_claimed(world, "destroy")):
        pass
    with (
        pytest.raises(TenantFailure, match="may have been used"),
        approvals.spending(world.store, world_claimed(world, "recycle")),
    ):
        pytest.fail("it may have been used")


def world_claimed(world: World, verb: str) -> str:
    return next(
        found.approval_id
        for found in approvals.load_all(world.store)
        if found.record is not None and found.record["verb"] == verb
    )


def test_law_2_a_claim_taken_out_of_the_file_stays_in_the_journal(world: World) -> None:
    approval_id = world.approve(verb="recycle")
    with pytest.raises(KeyboardInterrupt), approvals.spending(world.store, approval_id):
        raise KeyboardInterrupt
    edit_json(world.store.approval_path(approval_id), claimed_at=None)
    assert approvals.find(world.store, IDENTITY, "recycle", world.now) == []


def test_law_2_while_one_process_sends_the_verb_another_cannot(world: World) -> None:
    """The claim is held as long as the verb takes, and a kill lets go of it."""
    approval_id = world.approve()
    code = (
        "import sys; from ansible_collections.tenant.gpu.plugins.module_utils import approvals, state_store\n"
        "with approvals.spending(state_store.StateStore(sys.argv[1]), sys.argv[2]):\n"
        "    print('sending', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, world.store.root, approval_id]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as sender:
        assert sender.stdout is not None
        assert sender.stdout.readline() == b"sending\n"
        with pytest.raises(TenantFailure, match="another process"), approvals.spending(world.store, approval_id):
            pytest.fail("two verbs for one consent")
        sender.kill()
        sender.wait(timeout=600)
    with approvals.spending(world.store, approval_id):
        pass


@pytest.mark.parametrize("verb", ["destroy", "释放", "end the rental by hand"])
def test_a_verb_is_the_platforms_own_word(world: World, verb: str) -> None:
    world.approve(verb=verb)
    assert [found["verb"] for found in approvals.find(world.store, IDENTITY, verb, world.now)] == [verb]
