# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Law 8, attacked: what a box says of its files is read whole or refused, and no path leaves its folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import roster
from evidence_world import entry, make_manifest
from hypothesis import given, settings
from hypothesis import strategies as st

HOSTILE = [
    "../x",
    "a/../../x",
    "/etc/passwd",
    "a//b",
    "./a",
    "a/./b",
    "a/",
    "",
    "-rf",
    "a/-o",
    "a\\b",
    "a\nb",
    "a\0b",
    "a" * 300,
    None,
    7,
    [],
    "manifest.json",
    ".tenant-incoming/x",
    ".tenant-quarantine",
]


@pytest.mark.parametrize("path", HOSTILE)
def test_law_8_a_hostile_path_in_a_manifest_is_refused(path: Any) -> None:
    file = dict(entry("fine", b"x"), path=path)
    with pytest.raises(roster.BadManifest):
        roster.parse_manifest(make_manifest("r1", [file]))


@pytest.mark.parametrize(
    "change",
    [
        {"bytes": -1},
        {"bytes": True},
        {"bytes": "7"},
        {"bytes": 1.5},
        {"sha256": "x" * 64},
        {"sha256": "A" * 64},
        {"sha256": None},
        {"role": 1},
        {"loader": None},
    ],
)
def test_a_malformed_entry_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(roster.BadManifest):
        roster.parse_manifest(make_manifest("r1", [dict(entry("a", b"x"), **change)]))


@pytest.mark.parametrize("paths", [["a", "a"], ["a", "a/b"], ["a/b/c", "a/b"]])
def test_colliding_paths_are_refused(paths: list[str]) -> None:
    with pytest.raises(roster.BadManifest):
        roster.parse_manifest(make_manifest("r1", [entry(path, b"x") for path in paths]))


@pytest.mark.parametrize("value", [None, [], "x", 7, {}, {"schema": "gpu-tenant/manifest/v2"}])
def test_what_is_no_manifest_is_refused(value: Any) -> None:
    with pytest.raises(roster.BadManifest):
        roster.parse_manifest(value)


@pytest.mark.parametrize(
    "change",
    [
        {"run_id": "../r"},
        {"project": ""},
        {"box": "-x"},
        {"generation": 0},
        {"generation": True},
        {"generation": "1"},
        {"files": {}},
        {"files": ["a"]},
    ],
)
def test_a_manifest_without_a_usable_identity_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(roster.BadManifest):
        roster.parse_manifest({**make_manifest("r1", [entry("a", b"x")]), **change})


def test_law_1_a_digest_that_does_not_fit_is_refused() -> None:
    record = make_manifest("r1", [entry("a", b"x")])
    record["files"][0]["sha256"] = "0" * 64
    with pytest.raises(roster.BadManifest, match="digest"):
        roster.parse_manifest(record)


def test_a_path_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(roster.BadManifest, match="UTF-8"):
        roster.parse_files([entry("caf\udce9", b"x")])


@pytest.mark.parametrize("odd", [float("nan"), "\udcff", {1, 2}])
def test_a_value_that_json_cannot_hold_is_refused(odd: Any) -> None:
    record = make_manifest("r1", [entry("a", b"x")])
    record["files"][0]["note"] = odd
    with pytest.raises(roster.BadManifest):
        roster.parse_manifest(record)


def test_the_digest_covers_project_run_generation_and_files_only() -> None:
    record = make_manifest("r1", [entry("a", b"x")])
    assert roster.manifest_digest({**record, "created_at": "later", "totals": {}}) == record["digest"]
    for change in ({"run_id": "r2"}, {"project": "p"}, {"generation": 3}, {"files": []}):
        assert roster.manifest_digest({**record, **change}) != record["digest"]


def test_law_1_every_kind_of_broken_promise_is_named(tmp_path: Path) -> None:
    contents = {"right": b"1", "short": b"22", "other": b"33", "gone": b"4", "link": b"5", "folder": b"6", "pipe": b"7"}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    files = roster.parse_files([entry(name, data) for name, data in contents.items()])
    (tmp_path / "short").write_bytes(b"2")
    (tmp_path / "other").write_bytes(b"3x")
    for name in ("gone", "link", "folder", "pipe"):
        (tmp_path / name).unlink()
    (tmp_path / "link").symlink_to("right")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    found = {mismatch.path: mismatch.what for mismatch in roster.check_files(str(tmp_path), files)}
    assert set(found) == {"short", "other", "gone", "link", "folder", "pipe"}
    assert "1 bytes, 2 were promised" in found["short"]
    assert "SHA-256" in found["other"]
    assert found["gone"] == "is missing"
    assert "symlink" in found["link"]


def test_law_8_a_linked_folder_inside_a_copy_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "f").write_bytes(b"x")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "d").symlink_to(tmp_path / "outside")
    (mismatch,) = roster.check_files(str(tmp_path / "root"), roster.parse_files([entry("d/f", b"x")]))
    assert "symlink" in mismatch.what


def test_extra_files_are_everything_unpromised_but_our_own(tmp_path: Path) -> None:
    for path in ("a", "d/b", "d/c", "manifest.json", "d/manifest.json", ".tenant-incoming/x", ".tenant-quarantine/y"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("x")
    (tmp_path / "l").symlink_to("d")
    files = roster.parse_files([entry("a", b"x"), entry("d/b", b"x")])
    assert roster.extra_files(str(tmp_path), files) == ["d/c", "d/manifest.json", "l"]


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    )
)
def test_law_8_no_value_makes_the_parser_raise_anything_else(value: Any) -> None:
    for record in (value, make_manifest("r1", []) | {"files": value}):
        try:
            roster.parse_manifest(record)
        except roster.BadManifest:
            continue
