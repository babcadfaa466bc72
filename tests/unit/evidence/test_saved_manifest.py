# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the manifest beside the results is taken for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import roster
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.plugin_utils.saved_manifest import SavedManifest
from evidence_world import entry, make_manifest

RECORD = make_manifest("r1", [entry("top", b"top"), entry("d/café", b"x")])


@pytest.fixture
def saved(tmp_path: Path) -> SavedManifest:
    return SavedManifest(str(tmp_path), roster.parse_manifest(RECORD))


def test_what_is_saved_is_read_back(saved: SavedManifest, tmp_path: Path) -> None:
    assert saved.digest_there == ""
    saved.save()
    assert saved.digest_there == RECORD["digest"]
    assert roster.read_manifest(str(tmp_path)).record == RECORD


def test_the_same_record_in_other_words_is_written_anew(saved: SavedManifest, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(RECORD, indent=2))
    assert saved.digest_there == "another manifest"


def test_a_record_of_the_same_files_made_at_another_time_is_another(saved: SavedManifest, tmp_path: Path) -> None:
    other = dict(RECORD, created_at="2026-11-22T03:00:00Z")
    (tmp_path / "manifest.json").write_bytes(records.canonical_json(other))
    assert saved.digest_there == "another manifest"


@pytest.mark.parametrize("what", [b"", b"{", b"[]", b'{"schema": "gpu-tenant/manifest/v1"}'])
def test_a_manifest_that_cannot_be_used_is_another(saved: SavedManifest, tmp_path: Path, what: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(what)
    assert saved.digest_there == "another manifest"


def test_a_manifest_with_more_behind_it_is_not_taken_for_it(saved: SavedManifest, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(saved.content + b"x")
    assert saved.digest_there == "another manifest"
