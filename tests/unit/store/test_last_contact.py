# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a box was last known to hold: it only grows, and a box that makes up names does not grow it for ever."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import file_locks, last_contact
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


def test_two_looks_that_are_noted_at_once_are_both_noted(store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch notes what it saw while a harvest's gate is between its reading and its writing of the record."""
    merged, flock_now = last_contact.merged, file_locks.flock_now
    waits = threading.Event()
    watch = threading.Thread(target=last_contact.note, args=(store, BOX, {"r": {"late": Reached(9)}}))

    def meanwhile(one: Progress, other: Progress) -> Progress:
        if watch.ident is None:
            watch.start()
            deadline = time.monotonic() + 60
            while watch.is_alive() and not waits.wait(0.01):
                assert time.monotonic() < deadline
        return merged(one, other)

    def observed(descriptor: int) -> bool:
        got = flock_now(descriptor)
        if not got:
            waits.set()
        return got

    monkeypatch.setattr(last_contact, "merged", meanwhile)
    monkeypatch.setattr(file_locks, "flock_now", observed)
    last_contact.note(store, BOX, {"r": {"c": Reached(5)}})
    watch.join(60)
    assert noted(store) == {"r": {"c": Reached(5), "late": Reached(9)}}


def test_a_step_of_very_many_series_is_one_of_which_nobody_knows_the_files(store: StateStore) -> None:
    series = tuple((f"{chr(97 + number % 26)}{chr(97 + number // 26)}-step-*.pt", 4, 1) for number in range(501))
    last_contact.note(store, BOX, {"r": {"c": Reached(4, series=series[:500])}})
    assert noted(store)["r"]["c"].is_told
    last_contact.note(store, BOX, {"r": {"c": Reached(4, series=series)}})
    assert noted(store)["r"]["c"] == Reached(4)


def test_what_an_earlier_work_left_is_noted_beside_the_cell(store: StateStore) -> None:
    earlier = last_contact.cell_of_work("c", "5" * 64)
    last_contact.note(store, BOX, {"r": {"c": Reached(5), earlier: Reached(7)}})
    assert noted(store)["r"] == {"c": Reached(5), "c@555555555555": Reached(7)}
    for odd in ("c@", "c@../../etc/pas", "@555555555555", "c@5555"):
        assert last_contact.parse({"r": {odd: {"step": 1, "done": False}}}) is None


FIRST, SECOND = "1" * 64, "2" * 64


def look(store: StateStore, work: Any, step: int, cell: str = "c") -> dict[str, int | None]:
    """What is known of each cell after one more look."""
    newest = {"step": step, "path": "c/a1/out/step.pt", "series": {"step-*.pt": [[step, 1]]}}
    cells = [{"cell": cell, "state": "running", "config_sha256": work, "last_checkpoint": newest}]
    last_contact.note(store, BOX, last_contact.of_status([{"run_id": "r", "cells": cells}]))
    return {cell: reached.step for cell, reached in noted(store)["r"].items()}


def test_a_look_at_another_work_names_what_was_known_by_its_own(store: StateStore) -> None:
    assert look(store, FIRST, 5000) == {"c": 5000}
    assert look(store, SECOND, 2000) == {"c": 2000, "c@111111111111": 5000}
    assert look(store, SECOND, 3000) == {"c": 3000, "c@111111111111": 5000}
    assert look(store, FIRST, 10) == {"c": 5000, "c@222222222222": 3000}, "back to the first, and nothing is forgotten"


def test_a_cell_that_the_spec_has_no_more_goes_by_its_work_alone(store: StateStore) -> None:
    """The later look names no present work of it: what it had is an earlier one now."""
    look(store, FIRST, 5000)
    assert look(store, None, 4000, "c@222222222222") == {"c": 5000, "c@222222222222": 4000}, "of another work"
    assert look(store, None, 100, "c@111111111111") == {"c@111111111111": 5000, "c@222222222222": 4000}
    assert look(store, FIRST, 10) == {"c": 5000, "c@222222222222": 4000}, "the spec has it again"


def test_law_2_what_goes_by_another_name_now_is_kept_before_names_that_a_box_makes_up(store: StateStore) -> None:
    for cell in ("c", "d", "e"):
        look(store, FIRST, 5000, cell)
    made_up = {f"x{number}": Reached(1) for number in range(5)}
    last_contact.note(store, BOX, {"r": {**made_up, "c@111111111111": Reached(1)}})
    kept = {cell: reached.step for cell, reached in noted(store)["r"].items()}
    assert kept == {"d": 5000, "e": 5000, "c@111111111111": 5000}


def test_a_box_that_was_seen_in_two_works_is_home_with_both(store: StateStore) -> None:
    look(store, FIRST, 5000)
    look(store, SECOND, 2000)
    series = {cell: (("step-*.pt", step, 1),) for cell, step in (("c", 2000), ("c@111111111111", 5000))}
    for cell, known in noted(store)["r"].items():
        assert Reached(series[cell][0][1], True, (), series[cell]).at_least(known)


def test_a_work_is_noted_also_where_nothing_else_is_new(store: StateStore) -> None:
    assert look(store, None, 5000) == look(store, FIRST, 5000) == {"c": 5000}
    assert look(store, SECOND, 20) == {"c": 20, "c@111111111111": 5000}


@pytest.mark.parametrize("work", [None, 7, "", "x" * 64, "../../etc/passwd", "1" * 11, ["1" * 64]])
def test_what_is_no_work_moves_nothing(store: StateStore, work: Any) -> None:
    look(store, FIRST, 5000)
    assert look(store, work, 20) == {"c": 5000}


def test_a_box_that_names_a_cell_as_one_of_an_earlier_work_leaves_a_record_that_can_be_read(store: StateStore) -> None:
    for work in (FIRST, SECOND):
        assert look(store, work, 20, "c@333333333333") == {"c@333333333333": 20}


def test_works_that_a_box_makes_up_have_an_end_and_hide_nothing(store: StateStore) -> None:
    for number, step in enumerate([5000, 1, 2, 3, 9000, 4, 5]):
        found = look(store, f"{number}" * 64, step)
    assert len(found) == last_contact.MOST_CELLS
    assert {5000, 9000} <= set(found.values())


@pytest.mark.parametrize(
    "series",
    [
        7,
        [],
        {"a": 7},
        {"a": [7]},
        {"a": [[1]]},
        {"a": [[1, -1]]},
        {"a": [[True, 1]]},
        {"../a": [[1, 1]]},
        {"": [[1, 1]]},
    ]
    + [{"/": [[1, 1]]}, {7: [[1, 1]]}, {"a": [[1, 1, 1]]}, {"a": [["1", 1]]}],
)
def test_series_are_read_whole_or_not_at_all(series: Any) -> None:
    told = {"r": {"c": {"step": 1, "done": False, "series": series}}}
    assert last_contact.parse(told) is None


# --- which files a step has ---------------------------------------------------------------------------------------

PAIR = (("model-step-*.pt", 20, 1), ("optim-step-*.pt", 20, 1))


@pytest.mark.parametrize(
    ("home", "known", "stands"),
    [
        (PAIR, PAIR, True),
        (PAIR, PAIR[:1], True),
        (PAIR[:1], PAIR, False),
        ((("model-step-*.pt", 30, 1),), PAIR, False),
        ((("model-step-*.pt", 30, 1), ("optim-step-*.pt", 20, 1)), PAIR, True),
        (PAIR, (), False),
        ((("step-*/r*.pt", 20, 4),), (("step-*/r*.pt", 20, 8),), False),
        ((("step-*/r*.pt", 30, 4),), (("step-*/r*.pt", 20, 8),), False),
        ((("step-*/r*.pt", 10, 8), ("step-*/r*.pt", 30, 4)), (("step-*/r*.pt", 20, 8),), False),
        ((("step-*/r*.pt", 10, 8), ("step-*/r*.pt", 20, 4)), (("step-*/r*.pt", 10, 8), ("step-*/r*.pt", 20, 4)), True),
        # A distributed checkpoint is whole with its index, however many ranks wrote it.
        ((("step-*.dcp/", 20, 4),), (("step-*.dcp/", 20, 9),), False),
        ((("step-*.dcp/", 30, 4),), (("step-*.dcp/", 20, 9),), True),
    ],
)
def test_law_2_a_copy_stands_for_a_step_with_all_its_files(home: Any, known: Any, stands: bool) -> None:
    reached = Reached(max(step for _name, step, _files in known), series=known) if known else Reached(20)
    assert Reached(max(step for _name, step, _files in home), series=home).at_least(reached) is stands


def test_looks_at_a_step_that_was_being_written_add_up() -> None:
    half, other = Reached(30, series=(("model-step-*.pt", 30, 1),)), Reached(20, series=PAIR)
    assert half.furthest(other) == Reached(30, series=(("model-step-*.pt", 30, 1), ("optim-step-*.pt", 20, 1)))
    ranks, fewer = Reached(20, series=(("r*-step-*.pt", 20, 8),)), Reached(30, series=(("r*-step-*.pt", 30, 4),))
    assert ranks.furthest(fewer).series == (("r*-step-*.pt", 20, 8), ("r*-step-*.pt", 30, 4))
    assert last_contact.parse_cell(ranks.furthest(fewer).as_dict()) == ranks.furthest(fewer)


def test_names_of_checkpoints_that_a_box_makes_up_have_an_end(store: StateStore) -> None:
    last_contact.note(store, BOX, {"r": {"c": Reached(unnamed=("model.pt",))}})
    for number in range(200):
        last_contact.note(store, BOX, {"r": {"c": Reached(unnamed=(f"a{chr(97 + number % 26)}{number}.pt",))}})
    found = noted(store)["r"]["c"].unnamed
    assert len(found) == last_contact.MOST_UNNAMED
    assert "model.pt" in found, "what was noted stays"
