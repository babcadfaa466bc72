# SPDX-License-Identifier: MIT
from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import receipts
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import UnsafeName
from ansible_collections.tenant.gpu.plugins.module_utils.failures import EXIT_CODES, TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore


@pytest.fixture
def store(tmp_path) -> StateStore:
    return StateStore(str(tmp_path / "state"))


def test_an_empty_folder_name_is_refused() -> None:
    with pytest.raises(ValueError, match="tenant_state_dir"):
        StateStore("")


def test_names_cannot_leave_the_store(store: StateStore) -> None:
    with pytest.raises(UnsafeName):
        store.receipt_path("p", "../../etc", "b", 1)


def test_box_records_merge_and_count_generations(store: StateStore) -> None:
    assert store.last_generation("p", "b") == 0
    store.update_box("p", "b", 1, provider_id="7")
    store.update_box("p", "b", 2, provider_id="8")
    assert store.update_box("p", "b", 2, admitted_at="now")["provider_id"] == "8"
    assert store.last_generation("p", "b") == 2
    assert store.read_box("p", "b", 1)["provider_id"] == "7"
    assert store.read_box("p", "other", 1) is None


@pytest.mark.parametrize("folder", ["state", "[a-z]*?"])
def test_records_are_listed_wherever_the_store_is_and_of_nothing_else(tmp_path: Path, folder: str) -> None:
    store = StateStore(str(tmp_path / folder))
    StateStore(str(tmp_path / "b")).update_box("p", "b", 9)
    store.update_box("p", "b", 2)
    paths = [store.receipt_path("p", run, "b", generation) for run, generation in (("r1", 2), ("r2", 2), ("r1", 3))]
    for path in (*paths, store.receipt_path("p", "r1", "bb", 2), store.receipt_path("q", "r1", "b", 2)):
        records.write_record(path, "receipt", {"run_id": "r"})
    assert store.receipts_of_box("p", "b", 2) == paths[:2]
    assert store.receipts_of_box("p", "b", 4) == []
    assert len(store.receipts("p", "r1")) == 3
    assert store.last_generation("p", "b") == 2
    with pytest.raises(UnsafeName):
        store.receipts_of_box("p", "*", 2)


def test_journal_pairs_intent_and_effect(store: StateStore) -> None:
    journal = Journal(store)
    with journal.effect("create", box="b") as effect:
        assert [line["kind"] for line in journal.lines()] == ["intent"]
        effect.details["provider_id"] = "7"
    intent, done = journal.lines()
    assert (intent["kind"], done["kind"], done["provider_id"]) == ("intent", "effect", "7")
    assert intent["id"] == done["id"]


def test_journal_records_a_failure_and_lets_it_through(store: StateStore) -> None:
    journal = Journal(store)
    with pytest.raises(RuntimeError), journal.effect("create", box="b"):
        raise RuntimeError("reset by peer")
    assert journal.lines()[-1]["kind"] == "failed"
    assert journal.lines()[-1]["error"] == "reset by peer"


def test_a_torn_line_harms_only_itself(store: StateStore) -> None:
    journal = Journal(store)
    journal.append("intent", "create", box="a")
    with open(store.journal_path, "ab") as stream:
        stream.write(b'{"kind": "inte')
    journal.append("intent", "create", box="b")
    assert [line["box"] for line in journal.lines()] == ["a", "b"]


def newer_line(**more: object) -> bytes:
    line = {"schema": f"gpu-tenant/journal/v{records.SCHEMA_MAJOR + 1}", "kind": "effect", "verb": "rent", **more}
    return json.dumps(line).encode() + b"\n"


@pytest.mark.parametrize("length", [10, 70_000, 300_000])
@pytest.mark.parametrize("torn", [b"", b'{"schema": "gpu-tena'])
def test_a_newer_journal_is_read_for_what_is_known_and_not_written_to(
    store: StateStore, length: int, torn: bytes
) -> None:
    journal = Journal(store)
    journal.append("effect", "rent", box="a")
    assert journal.read().note == ""
    with open(store.journal_path, "ab") as stream:
        stream.write(newer_line(box="b", words="x" * length) + torn)
    before = Path(store.journal_path).read_bytes()
    begun = []
    with pytest.raises(TenantFailure, match="newer gpu-tenant") as caught, journal.effect("destroy", box="a"):
        begun.append("a")
    assert (caught.value.kind, begun) == ("config", [])
    assert "nothing was begun" in caught.value.safe
    assert Path(store.journal_path).read_bytes() == before
    reading = journal.read()
    assert [line["box"] for line in reading.lines] == ["a"]
    assert "1 left out" in reading.note


def test_a_newer_journal_keeps_a_receipt_in_force_that_could_not_be_said_to_be_withdrawn(store: StateStore) -> None:
    identity = BoxIdentity("p", "b", 1, "7")
    path = store.receipt_path("p", "r", "b", 1)
    records.write_record(path, "receipt", {"run_id": "r"})
    Path(store.journal_path).write_bytes(newer_line(box="b"))
    with pytest.raises(TenantFailure, match="newer gpu-tenant"):
        receipts.withdraw(store, identity, "r")
    assert Path(path).exists()
    Path(store.journal_path).unlink()
    assert receipts.withdraw(store, identity, "r") == path + ".withdrawn"


@pytest.mark.parametrize("schema", [None, "gpu-tenant/journal/v0", "gpu-tenant/receipt/v9", "gpu-tenant/journal/v٢", 7])
def test_a_line_that_does_not_say_that_it_is_newer_is_read_as_ever(store: StateStore, schema: object) -> None:
    Journal(store).append("effect", "rent", box="a")
    with open(store.journal_path, "ab") as stream:
        stream.write(json.dumps({"schema": schema, "box": "b"}).encode() + b"\n")
    Journal(store).append("effect", "rent", box="c")
    assert [line["box"] for line in Journal(store).lines()] == ["a", "b", "c"]


def test_many_writers_lose_no_line(store: StateStore) -> None:
    def write(name: str) -> None:
        for number in range(20):
            Journal(store).append("effect", "tick", box=f"{name}{number}")

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({line["box"] for line in Journal(store).lines()}) == 80


def test_a_failure_says_all_four_things() -> None:
    failure = TenantFailure("provider", "the create was refused", box="b1", safe="nothing was rented", fix="retry")
    assert str(failure) == "b1: the create was refused. nothing was rented. retry."
    assert failure.exit_code == EXIT_CODES["provider"]
    assert failure.as_result()["failure"]["kind"] == "provider"


def test_an_unknown_kind_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="unknown kind"):
        raise TenantFailure("oops", "x")
