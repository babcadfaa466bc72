# SPDX-License-Identifier: MIT
"""The index says what the files say, however it was before."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

from gpu_tenant import sql_index

EARLIER = Path(__file__).parents[2] / "earlier_schemas"


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


def test_a_newer_one_that_cannot_be_read_is_refused_in_words(store) -> None:
    told(store)
    with sqlite3.connect(file_of(store)) as connection:
        connection.execute("ALTER TABLE gpu_tenant_journal RENAME TO gpu_tenant_diary")
    connection.close()
    set_version(store, sql_index.VERSION + 1)
    with pytest.raises(TenantFailure, match=r"newer gpu-tenant.*others than this one reads") as refused:
        told(store)
    assert "--database sqlite:///" in refused.value.fix


# --- of an earlier version ------------------------------------------------------------------------------------------


def earlier(store: StateStore, version: int, more: str = "") -> None:
    """Put the index of that version there."""
    os.makedirs(store.root, exist_ok=True)
    with sqlite3.connect(file_of(store)) as connection:
        connection.executescript((EARLIER / f"index-{version}.sql").read_text() + more)
    connection.close()


def tables(store: StateStore) -> set[str]:
    connection = sqlite3.connect(file_of(store))
    try:
        return {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    finally:
        connection.close()


OURS = {"gpu_tenant_index", "gpu_tenant_journal", "gpu_tenant_files"}


def test_there_is_a_schema_of_every_earlier_version() -> None:
    found = sorted(path.stem for path in EARLIER.glob("index-*.sql"))
    assert found == [f"index-{number}" for number in range(1, sql_index.VERSION)]


@pytest.mark.parametrize("version", range(1, sql_index.VERSION))
def test_an_earlier_one_says_what_the_files_say(store, version: int) -> None:
    fill(store, "a")
    earlier(store, version)
    assert told(store) == (["a"], ["a"])
    assert tables(store) == OURS


def test_tables_of_others_with_the_names_of_ours_are_left_alone(store) -> None:
    fill(store, "a")
    theirs = "DROP TABLE files; CREATE TABLE files (path text, owner text); INSERT INTO files VALUES ('x', 'them');"
    earlier(store, 1, theirs)
    assert told(store) == (["a"], ["a"])
    assert tables(store) == {*OURS, "files"}


def test_one_without_a_version_is_made_anew(store) -> None:
    fill(store, "a")
    earlier(store, 1, "DELETE FROM gpu_tenant_index;")
    assert told(store) == (["a"], ["a"])
    assert tables(store) == OURS


KILLED = """\
import os, signal, sys
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from gpu_tenant import sql_index

make = sql_index._metadata.create_all
sql_index._metadata.create_all = lambda connection: (make(connection), os.kill(os.getpid(), signal.SIGKILL))
with sql_index.opened(StateStore(sys.argv[1])):
    pass
"""


def test_killed_in_the_middle_it_is_as_it_was_and_the_next_one_does_it(store) -> None:
    fill(store, "a")
    earlier(store, 1)
    before = tables(store)
    known = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", KILLED, store.root], env=known, timeout=600, check=False)
    assert done.returncode == -signal.SIGKILL
    assert tables(store) == before == {"gpu_tenant_index", "journal", "files"}
    assert told(store) == (["a"], ["a"])
    assert tables(store) == OURS


def test_two_at_once_do_it_once(store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_index, "LOCKED_WITHIN_S", 600.0)
    fill(store, "a", "b")
    earlier(store, 1)
    made = []
    original = sql_index._drop_former
    monkeypatch.setattr(sql_index, "_drop_former", lambda connection: made.append(original(connection)))
    both = threading.Barrier(2)

    def follow() -> tuple[list[str], list[str]]:
        both.wait(600)
        return told(store)

    with ThreadPoolExecutor(2) as pool:
        said = [future.result() for future in [pool.submit(follow) for _each in range(2)]]
    assert said == [(["a", "b"], ["a", "b"])] * 2
    assert len(made) == 1


def test_a_newer_one_that_was_first_is_not_taken_back(store, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, "a")
    told(store)
    set_version(store, sql_index.VERSION + 1)
    original, answers = sql_index._version, [1]
    monkeypatch.setattr(sql_index, "_version", lambda one: answers.pop() if answers else original(one))
    with sql_index.opened(store) as index:
        assert "newer gpu-tenant" in index.note
    assert tables(store) == OURS


@pytest.mark.parametrize("url", ["mysql://somewhere/db", "sqlite:relative"])
def test_another_database_is_refused(store, url: str) -> None:
    with pytest.raises(TenantFailure, match="no database that the index can be in"):
        sql_index.url_of(store, url)
