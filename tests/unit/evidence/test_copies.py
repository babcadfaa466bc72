# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Copies are what their bytes say now: on this machine, on a mount that another kernel read, in an object store."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import artifact_tiers, copies, copy_reading, gate, roster
from ansible_collections.tenant.gpu.plugins.module_utils.box import process
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity
from evidence_world import BOOT, World, edit_json, later

URI = "mount://autodl.fs/demo/r1/g2"
READER = BoxIdentity("demo", "reader", 1, "900")
OTHER_BOOT = "0b7e2a52-0000-4000-8000-00000000beef"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def manifest(world: World) -> roster.Manifest:
    return world.bring_home("r1")


def reread(world: World, uri: object, now: str = "") -> copies.CopyEvidence:
    return copies.reread(world.store, {"uri": uri}, world.identity, now or world.now)


def read_mount(world: World, manifest: roster.Manifest, **changes: Any) -> str:
    """What an honest reader finds in the folder that stands for the mount; ``changes`` are to the answer."""
    answer = copy_reading.read_here(str(world.root("r1")), [file.as_dict() for file in manifest.files])
    answer = {**answer, "boot_id": OTHER_BOOT, **changes}
    copy_reading.save(world.store, copy_reading.as_record(URI, manifest, READER, world.now, answer))
    return world.store.copy_reading_path("demo", URI)


# --- on this machine ---


def test_a_folder_is_what_its_bytes_say(world: World, manifest: roster.Manifest) -> None:
    uri = "file://" + str(world.root("r1"))
    assert reread(world, uri) == copies.CopyEvidence(uri, manifest.digest)
    (world.root("r1") / "c0/a1/done.json").write_text("[]")
    assert "done.json" in reread(world, uri).problems[0]


@pytest.mark.parametrize(
    "uri",
    [
        None,
        7,
        "",
        "file://",
        "file:relative",
        "file://host/etc",
        "ftp://host/key",
        "/etc",
        "mount://",
        "file:///[",
        "s3",
        "hf",
        "hf://",
        "hf://datasets/ada/results/demo",
    ],
)
def test_whatever_cannot_be_read_is_a_problem_and_no_exception(world: World, uri: object) -> None:
    found = reread(world, uri)
    assert found.problems
    assert not found.digest


def test_a_folder_with_blanks_and_umlauts_is_found(tmp_path: Path) -> None:
    assert copies.folder_of((tmp_path / "Erg%ebnisse ü").as_uri()) == str(tmp_path / "Erg%ebnisse ü")


# --- on a mount ---


def test_a_mount_counts_as_another_kernel_read_it(world: World, manifest: roster.Manifest) -> None:
    assert "nobody but its writer" in reread(world, URI).problems[0]
    read_mount(world, manifest)
    found = reread(world, URI)
    assert (found.problems, found.digest, found.tier) == ((), manifest.digest, "fs")
    assert found.reader["boot_id"] == OTHER_BOOT
    assert copies.why_not_independent(found, world.reading()) == ""


def test_the_writers_own_kernel_is_refused_unless_it_mounted_afresh(world: World, manifest: roster.Manifest) -> None:
    read_mount(world, manifest, boot_id=BOOT, device=51)
    found = reread(world, URI)
    assert "page cache" in copies.why_not_independent(found, world.reading(durable=[51]))
    assert "page cache" in copies.why_not_independent(found, world.reading(durable=[]))
    assert copies.why_not_independent(found, world.reading(durable=[50])) == ""
    assert "unknown kernel" in copies.why_not_independent(found, world.reading(boot_id=""))


def test_what_the_reader_missed_is_told(world: World, manifest: roster.Manifest) -> None:
    (world.root("r1") / "c0/a1/out/model.bin").write_bytes(b"wEights")
    read_mount(world, manifest)
    assert "model.bin" in reread(world, URI).problems[0]


def test_a_reader_without_the_mount_finds_nothing_whole(world: World, manifest: roster.Manifest) -> None:
    answer = copy_reading.read_here("/nowhere/at/all", [file.as_dict() for file in manifest.files])
    assert answer["problems"]
    assert copy_reading.read_here(str(world.root("r1")), [])["boot_id"] == process.current_boot().boot_id


@pytest.mark.parametrize(("seconds", "word"), [(301, "301 s old"), (-61, "in the future")])
def test_a_reading_of_a_mount_grows_stale_like_a_seal(
    world: World, manifest: roster.Manifest, seconds: int, word: str
) -> None:
    read_mount(world, manifest)
    assert reread(world, URI, later(world.now, 300)).problems == ()
    assert word in reread(world, URI, later(world.now, seconds)).problems[0]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"uri": "mount://autodl.fs/demo/r2/g2"}, "is a reading of"),
        ({"project": "other"}, "is a reading of"),
        ({"problems": None}, "does not say"),
        ({"read_at": "now"}, "no readable time"),
        ({"schema": "gpu-tenant/copy-reading/v2"}, "known version"),
        ({"digest": "0" * 64}, "edited"),
        ({"reader": {"boot_id": "another"}}, "edited"),
    ],
)
def test_an_edited_or_foreign_reading_is_refused(
    world: World, manifest: roster.Manifest, changes: dict[str, Any], word: str
) -> None:
    edit_json(read_mount(world, manifest), **changes)
    assert word in reread(world, URI).problems[0]


def test_an_older_reading_put_back_is_refused(world: World, manifest: roster.Manifest) -> None:
    path = Path(read_mount(world, manifest))
    older = path.read_bytes()
    read_mount(world, manifest, problems=["model.bin is missing"])
    path.write_bytes(older)
    assert "put back" in reread(world, URI).problems[0]
    os.unlink(world.store.journal_path)
    assert reread(world, URI).problems == (), "without a journal the record stands alone"


@pytest.mark.parametrize(
    "uri", ["mount://fs/x", "mount://autodl.fs", "mount://autodl.FS/x", "file:///x", "mount://../x"]
)
def test_only_a_mount_with_platform_and_tier_is_read(uri: str) -> None:
    assert copy_reading.is_mount_uri(URI)
    assert not copy_reading.is_mount_uri(uri)


def test_law_2_a_copy_that_goes_with_the_verb_is_no_copy(world: World, manifest: roster.Manifest) -> None:
    world.give_receipt("r1")
    world.save_reading()
    world.approve()
    os.unlink(world.store.journal_path)
    edit_json(world.store.receipt_path("demo", "r1", "box1", 2), copies=[{"uri": URI}])
    read_mount(world, manifest)
    assert world.decide(keeps=["fs"]).allowed
    refused = world.decide()
    assert not refused.allowed
    assert any("every copy" in gap for gap in refused.missing)


def test_law_2_one_broken_copy_of_two_shuts_the_gate(world: World, manifest: roster.Manifest) -> None:
    world.give_receipt("r1")
    world.save_reading()
    world.approve()
    receipt = world.store.receipt_path("demo", "r1", "box1", 2)
    whole = {"uri": "file://" + str(world.root("r1"))}
    os.unlink(world.store.journal_path)
    edit_json(receipt, copies=[whole, {"uri": URI}])
    assert not world.decide(keeps=["fs"]).allowed
    read_mount(world, manifest)
    assert world.decide(keeps=["fs"]).rule == gate.RULE_EVIDENCE_HOME
    world.save_reading(boot_id=OTHER_BOOT)
    assert not world.decide(keeps=["fs"]).allowed, "the reader's kernel is the writer's"


# --- which tiers hold artifacts ---

STORAGE = [
    {"tier": "system", "path": "/"},
    {"tier": "disk", "path": "/root/autodl-tmp"},
    {"tier": "fs", "path": "/root/autodl-fs"},
    {"tier": "volume", "path": ""},
]


@pytest.mark.parametrize(
    ("paths", "tiers"),
    [
        (["/root/autodl-tmp", "/root/autodl-fs"], ("disk", "fs")),
        (["/root/autodl-tmp/x", ""], ("disk",)),
        (["/root/autodl-tmpx"], ("disk", "system")),
        (["s3://bucket/x"], ("disk",)),
        ([], ("disk",)),
    ],
)
def test_the_tiers_that_hold_artifacts_follow_the_paths(paths: list[str], tiers: tuple[str, ...]) -> None:
    assert artifact_tiers.holding_artifacts(STORAGE, paths) == tiers
    assert artifact_tiers.keeps_every_artifact(["disk", "fs", "system"], tiers)
    assert not artifact_tiers.keeps_every_artifact([tier for tier in tiers if tier != "disk"], tiers)


def test_a_copy_elsewhere_survives_whatever_a_verb_keeps() -> None:
    kept = {uri: copies.survives(copies.CopyEvidence(uri), []) for uri in ("file:///r", "s3://b/r", "hf://a/b/r", URI)}
    assert kept == {"file:///r": True, "s3://b/r": True, "hf://a/b/r": True, URI: False}
    assert dataclasses.replace(copies.CopyEvidence(URI)).tier == "fs"
