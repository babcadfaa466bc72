# SPDX-License-Identifier: MIT
"""The index says what the files say, however it was before."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

from gpu_tenant import sql_index


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateStore:
    monkeypatch.delenv("GPU_TENANT_DATABASE_URL", raising=False)
    return StateStore(str(tmp_path / "state"))


def fill(store: StateStore, *boxes: str) -> None:
    for box in boxes:
        Journal(store).append("effect", "rent", project="p", box=box, generation=1, provider_id="7")
        store.update_box("p", box, 1, provider_id="7", platform="vast")


def told(store: StateStore) -> tuple[list[str], list[str]]:
    with sql_index.opened(store) as index:
        return [line["box"] for line in index.lines("p")], [record["box"] for record in index.records("box", "p")]


def file_of(store: StateStore) -> Path:
    return Path(store.path(sql_index.FILE_NAME))


def test_it_follows_the_files_and_reads_only_what_is_new(store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(store) == ([], [])
    fill(store, "a", "b")
    assert told(store) == (["a", "b"], ["a", "b"])
    fill(store, "c")
    read = []
    original = sql_index._journal_row
    monkeypatch.setattr(sql_index, "_journal_row", lambda place, raw: read.append(place) or original(place, raw))
    assert told(store) == (["a", "b", "c"], ["a", "b", "c"])
    assert len(read) == 1
    Path(store.box_record_path("p", "a", 1)).unlink()
    store.update_box("p", "b", 1, destroyed_at="2026-11-21T20:00:00Z")
    with sql_index.opened(store) as index:
        assert [record.get("destroyed_at") for record in index.records("box")] == ["2026-11-21T20:00:00Z", None]


def test_deleted_it_is_filled_again(store) -> None:
    fill(store, "a")
    before = told(store)
    file_of(store).unlink()
    assert told(store) == before == (["a"], ["a"])
    assert file_of(store).stat().st_mode & 0o777 == 0o600


def test_another_journal_is_read_from_its_beginning(store) -> None:
    fill(store, "a", "b")
    told(store)
    Path(store.journal_path).unlink()
    fill(store, "x")
    assert told(store)[0] == ["x"]


def test_a_torn_line_waits_until_it_is_whole(store) -> None:
    fill(store, "a")
    with open(store.journal_path, "ab") as stream:
        stream.write(b'{"project": "p", "box": "torn"')
    assert told(store)[0] == ["a"]
    with open(store.journal_path, "ab") as stream:
        stream.write(b"}\n")
    assert told(store)[0] == ["a", "torn"]


def test_a_line_of_a_newer_journal_waits_for_a_version_that_knows_it(store, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, "a")
    monkeypatch.setattr(records, "SCHEMA_MAJOR", records.SCHEMA_MAJOR + 1)
    Journal(store).append("effect", "rent", project="p", box="b")
    monkeypatch.undo()
    assert told(store)[0] == ["a"]
    monkeypatch.setattr(records, "SCHEMA_MAJOR", records.SCHEMA_MAJOR + 1)
    assert told(store)[0] == ["a", "b"]


def test_a_damaged_one_is_named_and_may_be_deleted(store) -> None:
    fill(store, "a")
    told(store)
    file_of(store).write_bytes(b"no database at all" * 100)
    with pytest.raises(TenantFailure, match=r"index\.sqlite is damaged.*delete it"):
        told(store)
    file_of(store).unlink()
    assert told(store)[0] == ["a"]


def test_a_locked_one_is_refused_in_words(store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_index, "LOCKED_WITHIN_S", 0.1)
    fill(store, "a")
    told(store)
    fill(store, "b")
    holder = sqlite3.connect(file_of(store))
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(TenantFailure, match="is locked by another process"):
            told(store)
    finally:
        holder.close()
    assert told(store)[0] == ["a", "b"]


def set_version(store: StateStore, version: int) -> None:
    with sqlite3.connect(file_of(store)) as connection:
        connection.execute("UPDATE gpu_tenant_index SET value = ? WHERE key = 'version'", (str(version),))
    connection.close()


def test_a_newer_one_is_only_read(store) -> None:
    fill(store, "a")
    told(store)
    set_version(store, sql_index.VERSION + 1)
    fill(store, "b")
    before = file_of(store).read_bytes()
    with sql_index.opened(store) as index:
        assert "newer gpu-tenant" in index.note
        assert [line["box"] for line in index.lines()] == ["a"]
    assert file_of(store).read_bytes() == before


def test_an_older_one_is_made_anew(store) -> None:
    fill(store, "a")
    told(store)
    set_version(store, 0)
    assert told(store) == (["a"], ["a"])


@pytest.mark.parametrize("url", ["mysql://somewhere/db", "sqlite:relative"])
def test_another_database_is_refused(store, url: str) -> None:
    with pytest.raises(TenantFailure, match="no database that the index can be in"):
        sql_index.url_of(store, url)
