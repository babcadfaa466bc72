# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a box was last known to hold: it only grows, and a box that makes up names does not grow it for ever."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import last_contact
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.last_contact import Progress, Reached
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore

BOX = BoxIdentity("demo", "a1", 1, "5000")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateStore:
    monkeypatch.setattr(last_contact, "MOST_STRANGE_RUNS", 4)
    monkeypatch.setattr(last_contact, "MOST_CELLS", 3)
    return StateStore(str(tmp_path))


def noted(store: StateStore) -> Progress:
    record = records.read_record(store.contact_path("demo", "a1", 1), "contact")
    return last_contact.parse(record["runs"]) or {}


def test_a_box_that_names_a_new_run_at_each_look_fills_no_disk(store: StateStore) -> None:
    for number in range(20):
        last_contact.note(store, BOX, {f"run-{number}": {"c": Reached(number)}})
    assert sorted(noted(store)) == ["run-0", "run-1", "run-2", "run-3"]
    last_contact.note(store, BOX, {"run-3": {"c": Reached(99)}})
    assert noted(store)["run-3"]["c"] == Reached(99), "what is noted is followed on"


def test_a_run_that_our_records_name_is_noted_whatever_else_a_box_names(store: StateStore) -> None:
    receipt = store.receipt_path("demo", "received", "a1", 1)
    records.write_record(receipt, "receipt", {})
    Journal(store).append("effect", "pull", **BOX.as_dict(), run_id="pulled")
    Journal(store).append("effect", "pull", **{**BOX.as_dict(), "box": "a2"}, run_id="of-another-box")
    for number in range(20):
        last_contact.note(store, BOX, {f"run-{number}": {}})
    last_contact.note(store, BOX, {"received": {"c": Reached(1)}, "of-another-box": {}})
    last_contact.note(store, BOX, {"pulled": {"c": Reached(2)}})
    assert {*noted(store)} == {"run-0", "run-1", "run-2", "run-3", "received", "pulled"}
    last_contact.note(store, BOX, {"pulled": {"c": Reached(7)}})
    assert noted(store)["pulled"]["c"] == Reached(7)


def test_cells_that_a_box_makes_up_have_an_end_too(store: StateStore) -> None:
    for number in range(9):
        last_contact.note(store, BOX, {"digits": {f"c{number}": Reached(number), "c0": Reached(number)}})
    assert noted(store) == {"digits": {"c0": Reached(8), "c1": Reached(1), "c2": Reached(2)}}


def test_many_runs_that_were_noted_before_are_kept(store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_contact, "MOST_STRANGE_RUNS", 9)
    last_contact.note(store, BOX, {f"run-{number}": {} for number in range(9)})
    monkeypatch.setattr(last_contact, "MOST_STRANGE_RUNS", 4)
    last_contact.note(store, BOX, {"one-more": {}, "run-8": {"c": Reached(1)}})
    assert {*noted(store)} == {f"run-{number}" for number in range(9)}


def test_names_of_checkpoints_that_a_box_makes_up_have_an_end(store: StateStore) -> None:
    last_contact.note(store, BOX, {"r": {"c": Reached(unnamed=("model.pt",))}})
    for number in range(200):
        last_contact.note(store, BOX, {"r": {"c": Reached(unnamed=(f"a{chr(97 + number % 26)}{number}.pt",))}})
    found = noted(store)["r"]["c"].unnamed
    assert len(found) == last_contact.MOST_UNNAMED
    assert "model.pt" in found, "what was noted stays"
