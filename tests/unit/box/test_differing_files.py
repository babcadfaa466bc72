# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Small files that go to a box: what differs is said, asked for once, replaced whole and read again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import box_files
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

PROGRAM = b"#!/bin/sh\nexit 0\n"


def order(root: Path, contents: dict[Path, bytes] | None = None, mode: str = "0755") -> dict[str, Any]:
    sha256 = hashlib.sha256(PROGRAM).hexdigest()
    return {
        "folders": [{"path": str(root), "mode": "0700"}, {"path": str(root / "bin"), "mode": "0700"}],
        "files": [{"path": str(root / "bin/program"), "mode": mode, "sha256": sha256}],
        "contents": {str(path): box_files.packed(content) for path, content in (contents or {}).items()},
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "gpu-tenant"


@pytest.fixture
def program(root: Path) -> Path:
    """A program that is there, as it was wanted."""
    path = root / "bin/program"
    box_files.answer(order(root, {path: PROGRAM}), False)
    assert box_files.answer(order(root), False) == {"changed": False, "differing": [], "wanting": []}
    return path


def test_a_first_question_makes_the_folders_and_asks_for_what_is_absent(root: Path) -> None:
    answer = box_files.answer(order(root), False)
    assert answer["changed"]
    assert answer["wanting"] == [str(root / "bin/program")]
    assert [found["before"] for found in answer["differing"]] == [{"state": "absent"}] * 3
    assert [oct(path.stat().st_mode & 0o7777) for path in (root, root / "bin")] == ["0o700", "0o700"]


def test_a_check_writes_nothing(root: Path) -> None:
    answer = box_files.answer(order(root, {root / "bin/program": PROGRAM}), True)
    assert answer["changed"]
    assert not root.exists()


def test_the_content_is_written_with_its_mode_whatever_the_umask(root: Path) -> None:
    before = os.umask(0o077)
    try:
        box_files.answer(order(root, {root / "bin/program": PROGRAM}), False)
    finally:
        os.umask(before)
    assert (root / "bin/program").read_bytes() == PROGRAM
    assert oct((root / "bin/program").stat().st_mode & 0o7777) == "0o755"


def test_one_other_byte_is_found_and_its_text_is_told(root: Path, program: Path) -> None:
    program.write_bytes(PROGRAM.replace(b"0", b"1"))
    answer = box_files.answer(order(root), False)
    assert answer["wanting"] == [str(program)]
    assert answer["differing"][0]["text"] == "#!/bin/sh\nexit 1\n"
    box_files.answer(order(root, {program: PROGRAM}), False)
    assert program.read_bytes() == PROGRAM


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_mode_is_put_right_without_sending_the_content(root: Path, program: Path, check_mode: bool) -> None:
    program.chmod(0o600)
    answer = box_files.answer(order(root), check_mode)
    assert (answer["changed"], answer["wanting"]) == (True, [])
    assert program.stat().st_mode & 0o7777 == (0o600 if check_mode else 0o755)


def test_the_mode_of_a_folder_is_put_right(root: Path, program: Path) -> None:
    program.parent.chmod(0o755)
    answer = box_files.answer(order(root), False)
    assert [found["before"]["mode"] for found in answer["differing"]] == ["0755"]
    assert program.parent.stat().st_mode & 0o7777 == 0o700


def test_a_link_is_replaced_and_what_it_led_to_stays(root: Path, program: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    program.rename(foreign)
    program.symlink_to(foreign)
    assert box_files.answer(order(root), False)["wanting"] == [str(program)], "the same bytes behind a link will not do"
    box_files.answer(order(root, {program: PROGRAM}), False)
    assert not program.is_symlink()
    assert foreign.read_bytes() == PROGRAM


def test_whoever_runs_the_old_program_keeps_it(root: Path, program: Path) -> None:
    program.write_bytes(b"the old program")
    with program.open("rb") as held:
        box_files.answer(order(root, {program: PROGRAM}), False)
        assert held.read() == b"the old program"
    assert program.read_bytes() == PROGRAM


def test_a_disk_that_gives_back_other_bytes_is_noticed(root: Path) -> None:
    with pytest.raises(TenantFailure, match="read back as another file") as told:
        box_files.answer(order(root, {root / "bin/program": b"not what was promised"}), False)
    assert told.value.kind == "evidence_missing"


def test_what_cannot_be_written_is_named(root: Path) -> None:
    root.write_text("a file where a folder should be")
    with pytest.raises(TenantFailure, match=str(root)) as told:
        box_files.answer(order(root), False)
    assert told.value.kind == "config"


def test_long_files_and_foreign_bytes_are_not_shown() -> None:
    assert box_files.shown(b"x" * 8193) is None
    assert box_files.shown(b"\xff\xfe") is None
    assert box_files.shown(b"text\n") == "text\n"
