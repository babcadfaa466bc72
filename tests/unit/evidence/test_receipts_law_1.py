# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Law 1, attacked: a receipt is what was re-read, never what was said before."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import delivery, load_checks, parts, receipts, roster
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity
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
    assert (receipt["files"], receipt["bytes"]) == (2, manifest.total_bytes)
    assert receipt["copies"][0]["uri"] == world.root("r1").as_uri()
    assert [check["path"] for check in receipt["checks"]] == ["c0/a1/done.json"]
    assert receipt["provenance"] == {"code": "c" * 64}
    assert (receipt["home"], receipt["parts"], receipt["whole"], receipt["waits_for"]) == (True, [], None, [])


def test_law_1_the_bytes_are_on_the_disk_before_the_record_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, seen = world.bring_home("r1"), []
    monkeypatch.setattr(delivery, "flush", lambda root: seen.append((root, os.path.exists(receipt_path(world)))))
    receipts.establish(world.store, world.claim(manifest), check_mode=True)
    assert seen == []
    receipts.establish(world.store, world.claim(manifest))
    assert seen == [(str(world.root("r1")), False)]


def test_law_1_a_disk_that_does_not_keep_the_bytes_gets_no_receipt(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(root: str) -> None:
        raise OSError(5, "Input/output error", root)

    monkeypatch.setattr(delivery, "flush", fail)
    with pytest.raises(TenantFailure, match="Input/output error") as caught:
        receipts.establish(world.store, world.claim(world.bring_home("r1")))
    assert caught.value.kind == "evidence_missing"
    assert not os.path.exists(receipt_path(world))


def test_law_1_the_same_files_under_another_spec_get_a_receipt_of_that_spec(world: World) -> None:
    manifest, newer = world.bring_home("r1"), "6" * 64
    receipts.establish(world.store, world.claim(manifest))
    again = roster.parse_manifest(dict(manifest.record, spec_sha256=newer))
    assert again.digest == manifest.digest
    outcome = receipts.establish(world.store, world.claim(again))
    assert (outcome.changed, outcome.receipt["spec_sha256"]) == (True, newer)
    assert (outcome.diff["before"]["spec_sha256"], outcome.diff["after"]["spec_sha256"]) == ("5" * 64, newer)
    assert world.store.finished_receipt("demo", "r1", newer) == outcome.receipt
    assert not receipts.establish(world.store, world.claim(again)).changed


def test_what_stayed_on_the_box_is_in_the_receipt(world: World) -> None:
    left = {"files": 9, "bytes": 900, "listed": [{"path": "c0/a1/out/cache", "bytes": 800, "why": "nobody named it"}]}
    claim = world.claim(world.bring_home("r1"), not_pulled=left)
    receipt = receipts.establish(world.store, claim).receipt
    assert receipt["not_pulled"] == left["listed"]
    assert receipt["not_pulled_totals"] == {"files": 9, "bytes": 900}
    assert not receipts.establish(world.store, claim).changed
    more = receipts.establish(world.store, world.claim(world.bring_home("r1"), not_pulled={**left, "files": 10}))
    assert more.changed


def second_copy(world: World, folder: Path) -> dict[str, Any]:
    shutil.copytree(world.root("r1"), folder)
    return {"uri": folder.as_uri(), "version_id": "v7", "how": "provider_checksum", "region": "eu"}


def test_law_1_a_further_copy_is_read_again_before_the_receipt_names_it(world: World, tmp_path: Path) -> None:
    manifest = world.bring_home("r1")
    copy = second_copy(world, tmp_path / "second")
    claim = world.claim(manifest, copies=[copy])
    receipt = receipts.establish(world.store, claim).receipt
    assert [each["uri"] for each in receipt["copies"]] == [world.root("r1").as_uri(), copy["uri"]]
    second = receipt["copies"][1]
    assert {name: second[name] for name in copy} == copy
    assert second["sha256"] == manifest.digest
    assert not receipts.establish(world.store, claim).changed

    (tmp_path / "second" / "c0/a1/out/model.bin").write_bytes(b"wEights")
    with pytest.raises(TenantFailure, match=r"second/c0/a1/out/model\.bin"):
        receipts.establish(world.store, claim)
    assert not os.path.exists(receipt_path(world)), "a receipt must not go on naming a copy that is broken"


def test_law_1_a_further_copy_of_other_files_is_no_copy(world: World, tmp_path: Path) -> None:
    world.bring_home("r1")
    copy = second_copy(world, tmp_path / "second")
    newer = world.bring_home("r1", {"c0/a1/out/model.bin": b"newer"})
    for wrong in (copy, {"uri": "ftp://elsewhere/r1"}, {"uri": (tmp_path / "absent").as_uri()}):
        with pytest.raises(TenantFailure) as caught:
            receipts.establish(world.store, world.claim(newer, copies=[wrong]))
        assert caught.value.kind == "evidence_missing"
    assert not os.path.exists(receipt_path(world))


def test_a_copy_that_is_no_longer_wanted_leaves_the_receipt_and_the_diff_says_so(world: World, tmp_path: Path) -> None:
    manifest = world.bring_home("r1")
    copy = second_copy(world, tmp_path / "second")
    receipts.establish(world.store, world.claim(manifest, copies=[copy]))
    outcome = receipts.establish(world.store, world.claim(manifest))
    assert outcome.changed
    assert copy["uri"] in outcome.diff["before"]["copies"]
    assert copy["uri"] not in outcome.diff["after"]["copies"]


def test_a_box_that_is_no_part_of_the_run_is_refused(world: World) -> None:
    claim = world.claim(world.bring_home("r1"), parts=("box8", "box9"))
    with pytest.raises(TenantFailure, match="box1 is not among the parts"):
        receipts.establish(world.store, claim)


def test_a_part_without_sharded_files_is_complete_by_itself_and_the_run_finished_with_the_last(world: World) -> None:
    boxes = ("box1", "box9")
    spec = {"id": "r1", "spec_sha256": "5" * 64, "parts": list(boxes)}
    manifest = world.bring_home("r1")
    assert receipts.establish(world.store, world.claim(manifest, parts=boxes)).receipt["complete"] is True
    assert parts.finished_receipt(world.store, "demo", spec) is None
    assert parts.finished_receipt(world.store, "demo", {**spec, "parts": []}) is not None

    other = BoxIdentity("demo", "box9", 1, "99")
    shutil.copytree(world.root("r1"), world.results / "box9")
    promised = make_manifest("r1", [dict(file) for file in manifest.record["files"]], other)
    records.write_record(str(world.results / "box9" / "manifest.json"), "manifest", promised)
    claim = world.claim(roster.parse_manifest(promised), identity=other, root=str(world.results / "box9"), parts=boxes)
    receipts.establish(world.store, claim)
    assert parts.finished_receipt(world.store, "demo", spec) is not None
    assert parts.finished_receipt(world.store, "demo", {**spec, "spec_sha256": "6" * 64}) is None


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

    def look(*arguments: Any, **options: Any) -> receipts.Verification:
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
