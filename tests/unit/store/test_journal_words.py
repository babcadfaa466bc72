# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The journal takes whatever a stranger said, and passes over what nobody can read."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.node_look import marked
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(str(tmp_path))


def test_a_failure_in_words_that_have_no_bytes_is_written_down_and_raised(store: StateStore) -> None:
    journal = Journal(store)
    with pytest.raises(RuntimeError, match="create failed"), journal.effect("create", box="b"):
        raise RuntimeError("create failed with 500: \ud800")
    intent, failed = journal.lines()
    assert (intent["kind"], failed["kind"], failed["id"]) == ("intent", "failed", intent["id"])
    assert failed["error"].startswith("create failed with 500: \ud800")


def test_a_line_too_deep_to_be_read_hides_no_other(store: StateStore) -> None:
    journal = Journal(store)
    journal.append("effect", "one")
    with open(store.journal_path, "ab") as stream:
        stream.write(b"[" * 200_000 + b"\n")
    journal.append("effect", "two")
    assert [line["verb"] for line in journal.lines()] == ["one", "two"]


@pytest.mark.parametrize("told", ["[" * 200_000, "{", "[1]", "3"])
def test_a_node_that_tells_nonsense_of_its_python_told_nothing(told: str) -> None:
    assert marked(f"noise\nmark:{told}\n", "mark:") is None
