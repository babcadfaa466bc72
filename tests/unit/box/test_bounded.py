# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Commands that may hang, and what they write: without a disk, and bounded."""

from __future__ import annotations

import tempfile
import time

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box.bounded import Apart, run_apart, run_bounded

PATIENCE_S = 300.0


@pytest.fixture
def no_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a box whose one disk a trainer has filled."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", list)
    with pytest.raises(FileNotFoundError):
        tempfile.gettempdir()


@pytest.mark.usefixtures("no_temporary_folder")
def test_a_full_disk_keeps_no_command_from_being_heard() -> None:
    assert run_bounded(["/bin/sh", "-c", "echo out; echo err >&2; exit 3"], PATIENCE_S) == (3, "out\nerr\n", "")
    assert run_apart(["/bin/sh", "-c", "echo out; echo err >&2"], PATIENCE_S) == Apart(0, b"out\n", "err\n", False, "")


def test_one_that_writes_more_than_is_kept_ends_all_the_same() -> None:
    found = run_bounded(["/bin/sh", "-c", "head -c 5000000 /dev/zero | tr '\\0' x; exit 7"], PATIENCE_S)
    assert (found.rc, found.out, found.why) == (7, "x" * 256 * 1024, "")


def test_of_too_much_output_its_end_is_kept_where_that_is_asked_for() -> None:
    found = run_bounded(["/bin/sh", "-c", "yes old | head -c 1000000; echo new"], PATIENCE_S, newest=True)
    assert (found.rc, len(found.out), found.out[-8:]) == (0, 256 * 1024, "old\nnew\n")


def test_one_that_closes_its_output_is_waited_for() -> None:
    assert run_bounded(["/bin/sh", "-c", "exec >&- 2>&-; sleep 0.2; exit 5"], PATIENCE_S).rc == 5


@pytest.mark.parametrize("grandchild", ["sleep 600", "yes"])
def test_a_grandchild_that_holds_or_floods_the_output_is_not_waited_for(grandchild: str) -> None:
    began = time.monotonic()
    found = run_bounded(["/bin/sh", "-c", f"echo said; {grandchild} & exit 4"], 2 * PATIENCE_S)
    assert found.rc == 4
    assert "said" in found.out
    assert time.monotonic() - began < PATIENCE_S
