# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The receiving end: nothing stands outside the staging folder whose bytes were not compared."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import delivery, roster
from evidence_world import entry

FILES = roster.parse_files([entry("d/a", b"aaa"), entry("b", b"bb")])


def stage(root: Path, **contents: bytes) -> Path:
    staging = Path(delivery.open_staging(str(root), FILES))
    for name, data in contents.items():
        (staging / name.replace("__", "/")).write_bytes(data)
    return staging


def test_law_1_only_right_bytes_leave_the_staging_folder(tmp_path: Path) -> None:
    staging = stage(tmp_path, d__a=b"aaa", b=b"bx")
    settled, mismatches = delivery.settle(str(tmp_path), FILES)
    assert settled == ["d/a"]
    assert [mismatch.path for mismatch in mismatches] == ["b"]
    assert (tmp_path / "d/a").read_bytes() == b"aaa"
    assert not (tmp_path / "b").exists()
    assert not (staging / "b").exists(), "a wrong beginning is not continued"


def test_law_1_a_right_file_in_place_survives_a_wrong_arrival(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"bb")
    stage(tmp_path, b=b"xx")
    delivery.settle(str(tmp_path), FILES)
    assert (tmp_path / "b").read_bytes() == b"bb"


def test_law_8_a_link_that_arrives_is_refused_and_removed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"bb")
    root = tmp_path / "root"
    root.mkdir()
    staging = stage(root)
    (staging / "b").symlink_to(secret)
    settled, mismatches = delivery.settle(str(root), FILES)
    assert settled == []
    assert "symlink" in next(mismatch.what for mismatch in mismatches if mismatch.path == "b")
    assert not os.path.lexists(staging / "b")
    assert secret.read_bytes() == b"bb"


def test_law_8_a_linked_folder_that_arrives_leads_nowhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_bytes(b"aaa")
    root = tmp_path / "root"
    root.mkdir()
    staging = stage(root)
    (staging / "d").rmdir()
    (staging / "d").symlink_to(outside)
    settled, _unused = delivery.settle(str(root), FILES)
    assert settled == []
    assert (outside / "a").read_bytes() == b"aaa"
    assert not (root / "d").exists()


def test_law_8_a_linked_folder_at_the_destination_leads_nowhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "d").symlink_to(outside)
    stage(root, d__a=b"aaa", b=b"bb")
    settled, mismatches = delivery.settle(str(root), FILES)
    assert settled == ["b"]
    assert "symlink" in mismatches[0].what
    assert list(outside.iterdir()) == []


def test_permissions_are_ours_and_only_the_roster_makes_a_file_executable(tmp_path: Path) -> None:
    staging = stage(tmp_path, b=b"bb")
    (staging / "b").chmod(0o4777)
    delivery.settle(str(tmp_path), FILES)
    assert (tmp_path / "b").stat().st_mode & 0o7111 == 0
    script = roster.parse_files([dict(entry("b", b"bb"), executable=True)])
    stage(tmp_path, b=b"bb")
    delivery.settle(str(tmp_path), script)
    assert (tmp_path / "b").stat().st_mode & 0o100


def test_a_survey_re_reads_bytes(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"bb")
    (tmp_path / "x").write_bytes(b"x")
    assert delivery.survey(str(tmp_path), FILES) == (["b"], ["x"])
    (tmp_path / "b").write_bytes(b"bx")
    assert delivery.survey(str(tmp_path), FILES) == ([], ["x"])
    assert delivery.survey(str(tmp_path / "absent"), FILES) == ([], [])


def test_law_9_a_dry_survey_makes_nothing(tmp_path: Path) -> None:
    answer = delivery.answer_survey(str(tmp_path / "new"), FILES, "", dry=True)
    assert answer["good"] == []
    assert not (tmp_path / "new").exists()
    delivery.answer_survey(str(tmp_path / "new"), FILES, "", dry=False)
    assert (tmp_path / "new" / ".tenant-incoming" / "d").is_dir()


def test_quarantine_moves_and_deletes_nothing(tmp_path: Path) -> None:
    for path in ("d/x", "d/y", "z"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(path)
    first = Path(delivery.quarantine(str(tmp_path), ["d/x", "d/y"]))
    second = Path(delivery.quarantine(str(tmp_path), ["z"]))
    assert first != second
    assert (first / "d/x").read_text() == "d/x"
    assert (second / "z").read_text() == "z"
    assert not (tmp_path / "d").exists()


def test_only_named_extras_are_set_aside(tmp_path: Path) -> None:
    stage(tmp_path, d__a=b"aaa", b=b"bb")
    (tmp_path / "x").write_text("x")
    (tmp_path / "y").write_text("y")
    answer = delivery.answer_settle(str(tmp_path), FILES, "", ["x", "../y", "b"])
    assert answer["mismatches"] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tenant-quarantine", "b", "d", "y"]


def test_a_tree_is_scanned_whole_sorted_and_without_what_is_excluded(tmp_path: Path) -> None:
    for path in ("b.py", "a/c.py", "a/x.pyc", ".git/HEAD", "run.sh", ".tenant-incoming/old"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(path)
    (tmp_path / "run.sh").chmod(0o755)
    found = delivery.scan_tree(str(tmp_path), [".git", "*.pyc"])
    assert [file.path for file in found] == ["a/c.py", "b.py", "run.sh"]
    assert [file.executable for file in found] == [False, False, True]


@pytest.mark.parametrize("kind", ["file link", "folder link", "pipe", "name"])
def test_law_8_what_cannot_be_sent_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    if kind == "file link":
        (tmp_path / "odd").symlink_to("/etc/hostname")
    elif kind == "folder link":
        (tmp_path / "odd").symlink_to("/etc")
    elif kind == "pipe":
        os.mkfifo(tmp_path / "odd")
    else:
        (tmp_path / "-odd").write_text("x")
    with pytest.raises(delivery.UnsafeTree, match="odd"):
        delivery.scan_tree(str(tmp_path))


def test_law_8_offers_are_judged_before_anything_moves(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a").symlink_to("/etc/hostname")
    (tmp_path / "b").write_bytes(b"bbb")
    found = {mismatch.path: mismatch.what for mismatch in delivery.offered(str(tmp_path), delivery.by_name(FILES))}
    assert "symlink" in found["d/a"]
    assert "3 bytes" in found["b"]
