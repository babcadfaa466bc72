# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Law 1, attacked: a receipt is what was re-read, never what was said before."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import load_checks, receipts, roster
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from evidence_world import World, edit_json, make_manifest


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def receipt_path(world: World) -> str:
    return world.store.receipt_path("demo", "r1", "box1", 2)


def test_law_1_a_receipt_says_what_was_found(world: World) -> None:
    manifest = world.bring_home("r1")
    outcome = receipts.establish(world.store, world.claim(manifest, provenance={"code": "c" * 64}))
    receipt = records.read_record(receipt_path(world), "receipt")
    assert outcome.changed
    assert receipt == outcome.receipt
    assert receipt["complete"] is True
    assert receipt["manifest_digest"] == manifest.digest
    assert (receipt["files"], receipt["bytes"]) == (2, 9)
    assert receipt["copies"][0]["uri"] == world.root("r1").as_uri()
    assert [check["path"] for check in receipt["checks"]] == ["c0/a1/done.json"]
    assert receipt["provenance"] == {"code": "c" * 64}


def test_law_9_a_standing_receipt_is_kept_as_it_is(world: World) -> None:
    world.give_receipt("r1")
    before = Path(receipt_path(world)).read_bytes()
    outcome = receipts.establish(world.store, world.claim(world.bring_home("r1")))
    assert not outcome.changed
    assert outcome.diff == {"before": {}, "after": {}}
    assert Path(receipt_path(world)).read_bytes() == before


def test_law_1_the_old_receipt_is_withdrawn_before_the_new_verification(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.give_receipt("r1")
    manifest = world.bring_home("r1", {"c0/a1/out/model.bin": b"newer"})
    seen = []

    def look(*arguments: Any) -> receipts.Verification:
        seen.append(os.path.exists(receipt_path(world)))
        raise KeyboardInterrupt

    monkeypatch.setattr(receipts, "verify", look)
    with pytest.raises(KeyboardInterrupt):
        receipts.establish(world.store, world.claim(manifest))
    assert seen == [False]
    assert not os.path.exists(receipt_path(world))
    assert os.path.exists(receipt_path(world) + ".withdrawn")
    assert [line["verb"] for line in Journal(world.store).lines()][-1] == "withdraw-receipt"


def test_law_1_a_tampered_file_withdraws_the_receipt_and_is_named(world: World) -> None:
    world.give_receipt("r1")
    (world.root("r1") / "c0/a1/out/model.bin").write_bytes(b"wEights")
    with pytest.raises(TenantFailure, match=r"c0/a1/out/model\.bin") as caught:
        receipts.establish(world.store, world.claim(roster.read_manifest(str(world.root("r1")))))
    assert caught.value.kind == "evidence_missing"
    assert not os.path.exists(receipt_path(world))


def test_law_1_a_file_that_does_not_load_gets_no_receipt(world: World) -> None:
    manifest = world.bring_home("r1", {"c0/a1/done.json": b'{"torn": '})
    with pytest.raises(TenantFailure, match=r"done\.json"):
        receipts.establish(world.store, world.claim(manifest))
    assert not os.path.exists(receipt_path(world))


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"run_state": "running"}, "not done"),
        ({"run_state": "failed"}, "not done"),
        ({"level": "structure"}, "structure only"),
    ],
)
def test_law_2_a_receipt_is_complete_only_for_finished_loaded_runs(
    world: World, changes: dict[str, Any], because: str
) -> None:
    outcome = receipts.establish(world.store, world.claim(world.bring_home("r1"), **changes))
    assert outcome.receipt["complete"] is False
    assert because in outcome.receipt["incomplete_because"][0]


def test_law_2_a_snapshot_or_an_empty_manifest_is_never_complete(world: World) -> None:
    files = [dict(file) for file in world.bring_home("r1").record["files"]]
    snapshot = roster.parse_manifest(make_manifest("r1", files, snapshot=True))
    assert receipts.establish(world.store, world.claim(snapshot)).receipt["complete"] is False
    empty = roster.parse_manifest(make_manifest("r1", []))
    receipt = receipts.establish(world.store, world.claim(empty)).receipt
    assert receipt["complete"] is False
    assert receipt["incomplete_because"] == ["the manifest lists no file"]


def test_law_9_check_mode_looks_and_leaves_the_receipt(world: World) -> None:
    world.give_receipt("r1")
    manifest = world.bring_home("r1", {"c0/a1/out/model.bin": b"newer"})
    before = Path(receipt_path(world)).read_bytes()
    outcome = receipts.establish(world.store, world.claim(manifest), check_mode=True)
    assert outcome.changed
    assert outcome.diff["after"]["manifest_digest"] == manifest.digest
    assert Path(receipt_path(world)).read_bytes() == before


def test_law_1_a_damaged_or_edited_receipt_is_made_anew(world: World) -> None:
    world.give_receipt("r1")
    edit_json(receipt_path(world), complete=False)
    manifest = roster.read_manifest(str(world.root("r1")))
    assert receipts.establish(world.store, world.claim(manifest)).receipt["complete"] is True
    Path(receipt_path(world)).write_text('{"schema": ')
    assert receipts.establish(world.store, world.claim(manifest)).changed
    assert records.read_record(receipt_path(world), "receipt")["complete"] is True


def test_extra_files_are_reported(world: World) -> None:
    manifest = world.bring_home("r1")
    (world.root("r1") / "notes.txt").write_text("mine")
    outcome = receipts.establish(world.store, world.claim(manifest))
    assert outcome.extra == ("notes.txt",)
    assert outcome.receipt["extra"] == ["notes.txt"]


def test_a_manifest_of_another_box_is_refused_before_anything_is_withdrawn(world: World) -> None:
    path = world.give_receipt("r1")
    other = roster.parse_manifest(make_manifest("r1", [], type(world.identity)("demo", "box9", 2, "4711")))
    with pytest.raises(TenantFailure, match="box9"):
        receipts.establish(world.store, world.claim(other))
    assert os.path.exists(path)


def test_a_misspelt_expectation_is_refused_before_anything_is_withdrawn(world: World) -> None:
    path = world.give_receipt("r1")
    claim = world.claim(world.bring_home("r1"), level="expect", expect={"min_steps": 3})
    with pytest.raises(TenantFailure, match="min_steps"):
        receipts.establish(world.store, claim)
    assert os.path.exists(path)
    with pytest.raises(load_checks.BadExpectation):
        load_checks.validate_request("loaded", {})
