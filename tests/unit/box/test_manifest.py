# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Manifests: the digest depends on what is promised and on nothing else."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import hashing, manifest, records, spread
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import UnsafeName
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import Refused
from hypothesis import given
from hypothesis import strategies as st

IDENTITY = {"project": "vision", "box": "b1", "generation": 2, "provider_id": "77"}
NAMES = (
    st.lists(st.sampled_from("abcXYZ019._é"), min_size=1, max_size=6)
    .map("".join)
    .filter(lambda text: text not in (".", ".."))
)
LINES = st.builds(
    lambda parts, size, sha, role: {
        "path": "/".join(parts),
        "bytes": size,
        "sha256": sha,
        "role": role,
        "loader": "none",
    },
    st.lists(NAMES, min_size=1, max_size=3),
    st.integers(0, 2**60),
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.sampled_from(["checkpoint", "metrics", "log", "other"]),
)
ROSTERS = st.lists(LINES, max_size=6, unique_by=lambda line: line["path"])


def made(files: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    identity = {**IDENTITY, **{key: changes.pop(key) for key in list(changes) if key in IDENTITY}}
    built: dict[str, Any] = manifest.build(identity, changes.pop("run_id", "digits"), "a" * 64, files, **changes)
    return built


@given(ROSTERS, st.randoms())
def test_the_digest_does_not_depend_on_order(files: list[dict[str, Any]], random: Any) -> None:
    mixed = [dict(reversed(list(line.items()))) for line in files]
    random.shuffle(mixed)
    assert made(files)["digest"] == made(mixed)["digest"]
    assert made(files)["files"] == made(mixed)["files"]


@given(ROSTERS.filter(bool), st.data())
def test_the_digest_changes_with_every_promised_value(files: list[dict[str, Any]], data: st.DataObject) -> None:
    known = made(files)["digest"]
    number = data.draw(st.integers(0, len(files) - 1))
    key, value = data.draw(
        st.sampled_from([("bytes", -1), ("sha256", "0" * 63 + "g"), ("role", "x"), ("loader", "y"), ("path", "zz/new")])
    )
    changed = [dict(line) for line in files]
    changed[number][key] = value
    assert made(changed)["digest"] != known
    assert made(files[:number] + files[number + 1 :])["digest"] != known
    for other in ({"project": "p2"}, {"generation": 3}, {"run_id": "other"}):
        assert made(files, **other)["digest"] != known


@given(ROSTERS)
def test_the_digest_is_of_canonical_json_and_covers_nothing_else(files: list[dict[str, Any]]) -> None:
    built = made(files, snapshot=False, state="done")
    covered = {"project": "vision", "run_id": "digits", "generation": 2, "files": built["files"]}
    assert built["digest"] == records.digest(covered)
    assert built["digest"] == made(files, box="other", provider_id="9", snapshot=True)["digest"]
    assert built["totals"] == {"files": len(files), "bytes": sum(line["bytes"] for line in files)}


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a//b", "a/./b", "-rf", "a\nb", ""])
def test_an_unsafe_path_never_gets_into_a_manifest(path: str) -> None:
    line = {"path": path, "bytes": 1, "sha256": "0" * 64, "role": "other", "loader": "none"}
    with pytest.raises(UnsafeName):
        made([line])


def test_a_comparison_names_every_difference() -> None:
    def line(path: str, sha: str = "0") -> dict[str, Any]:
        return {"path": path, "bytes": 1, "sha256": sha * 64, "role": "other", "loader": "none"}

    known = made([line("same"), line("gone"), line("changed")])
    result = manifest.compare(known, [line("same"), line("changed", "1"), line("new")])
    assert result == {"missing": ["gone"], "extra": ["new"], "different": ["changed"], "equal": False}
    assert manifest.compare(known, known["files"])["equal"]


def test_a_folder_is_listed_whole_or_refused(tmp_path: Path) -> None:
    everything = [{"glob": "**", "role": "other", "loader": "none"}]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.bin").write_bytes(b"x")
    lines = manifest.of_folder(str(tmp_path), everything)
    assert [(line["path"], line["bytes"]) for line in lines] == [("a/x.bin", 1)]
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(Refused, match="symlink"):
        manifest.of_folder(str(tmp_path), everything)
    (tmp_path / "link").unlink()
    with pytest.raises(Refused, match=r"x\.bin"):
        manifest.of_folder(str(tmp_path), [{"glob": "**", "role": "other", "loader": "torch"}])
    with pytest.raises(Refused, match="not a folder"):
        manifest.of_folder(str(tmp_path / "absent"), everything)


@pytest.mark.parametrize("cores", [1, 3])
def test_a_folder_is_listed_and_refused_alike_on_one_core_and_on_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.setattr(spread, "cores", lambda: cores)
    monkeypatch.setattr(spread, "_WORTH_A_FORK", 0)
    for number in range(9):
        (tmp_path / f"m{number}.json").write_text(f'{{"loss": {number}}}')
    globs = [{"glob": "*.json", "role": "metrics", "loader": "json"}]
    lines = manifest.of_folder(str(tmp_path), globs)
    assert [(line["path"], line["sha256"]) for line in lines] == [
        (path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in sorted(tmp_path.iterdir())
    ]
    (tmp_path / "m8.json").write_text("{")
    with pytest.raises(Refused, match=r"m8\.json cannot be listed"):
        manifest.of_folder(str(tmp_path), globs)


@pytest.mark.parametrize("size", [10, 300 * 1024])
def test_a_file_that_grows_or_shrinks_while_it_is_hashed_is_seen_by_its_count(tmp_path: Path, size: int) -> None:
    (tmp_path / "f").write_bytes(b"x" * size)
    for expected in (size - 1, size, size + 1):
        descriptor = os.open(tmp_path / "f", os.O_RDONLY)
        try:
            count, sha256 = hashing.hash_open(descriptor, expected)
        finally:
            os.close(descriptor)
        assert count == size
        assert sha256 == hashlib.sha256(b"x" * size).hexdigest()
