# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A cell's log, read from its end and on from any place: nothing twice, nothing left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import finish, run_log
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout
from hypothesis import given, settings
from hypothesis import strategies as st

RUN, CELL = "digits", "c0"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path))


def log_of(layout: Layout, attempt: int) -> Path:
    path = Path(layout.attempt(RUN, CELL, attempt).log)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_the_tail_is_of_the_newest_attempt_and_says_where_it_ends(layout: Layout) -> None:
    log_of(layout, 1).write_text("old\n")
    log_of(layout, 2).write_text("one\ntwo\nthree\n")
    found = run_log.tail(layout, RUN, CELL, 2)
    assert (found["attempt"], found["lines"], found["offset"]) == (2, ["two", "three"], 14)
    assert run_log.tail(layout, RUN, CELL, 0)["lines"] == []


def test_a_cell_that_never_ran_has_no_lines(layout: Layout) -> None:
    found = run_log.tail(layout, RUN, CELL, 5)
    assert (found["attempt"], found["lines"], found["offset"]) == (0, [], 0)
    assert run_log.after(layout, RUN, CELL, 0, 0)["text"] == ""


def test_what_comes_after_a_place(layout: Layout) -> None:
    path = log_of(layout, 1)
    path.write_text("one\n")
    place = run_log.tail(layout, RUN, CELL, 5)
    with path.open("a") as stream:
        stream.write("two\n")
    found = run_log.after(layout, RUN, CELL, place["attempt"], place["offset"])
    assert (found["text"], found["attempt"], found["offset"]) == ("two\n", 1, 8)
    assert run_log.after(layout, RUN, CELL, 1, 8)["text"] == ""


def test_the_next_attempt_comes_once_this_one_is_read(layout: Layout) -> None:
    log_of(layout, 1).write_text("one\nmore\n")
    log_of(layout, 3).write_text("again\n")
    found = run_log.after(layout, RUN, CELL, 1, 4)
    assert (found["text"], found["attempt"]) == ("more\n", 1)
    found = run_log.after(layout, RUN, CELL, found["attempt"], found["offset"])
    assert (found["text"], found["attempt"], found["offset"]) == ("again\n", 3, 6)


def test_a_rotated_log_is_read_from_its_beginning(layout: Layout) -> None:
    log_of(layout, 1).write_text("new\n")
    found = run_log.after(layout, RUN, CELL, 1, 1000)
    assert (found["text"], found["offset"]) == ("new\n", 4)


def test_the_tail_of_a_log_that_was_just_rotated_goes_on_into_what_it_held_before(layout: Layout) -> None:
    path = log_of(layout, 1)
    Path(run_log.earlier(str(path))).write_text("one\ntwo\nthr")
    path.write_text("ee\n")
    found = run_log.tail(layout, RUN, CELL, 2)
    assert (found["lines"], found["offset"]) == (["two", "three"], 3)
    assert run_log.tail(layout, RUN, CELL, 1)["lines"] == ["three"]
    assert run_log.end(str(path)) == "one\ntwo\nthree\n"
    path.write_text("")
    assert run_log.tail(layout, RUN, CELL, 1)["lines"] == ["thr"]
    assert run_log.after(layout, RUN, CELL, 1, 0)["text"] == ""


def test_a_rotation_takes_nothing_from_who_follows(layout: Layout) -> None:
    path = log_of(layout, 1)
    path.write_text("one\n")
    place = run_log.tail(layout, RUN, CELL, 5)["offset"]
    Path(run_log.earlier(str(path))).write_text("one\ntwo\n")
    path.write_text("3\n")
    found = run_log.after(layout, RUN, CELL, 1, place)
    assert (found["text"], found["offset"]) == ("two\n", 8)
    found = run_log.after(layout, RUN, CELL, 1, found["offset"])
    assert (found["text"], found["offset"]) == ("3\n", 2)


def test_what_a_log_held_before_is_part_of_what_a_finished_attempt_promises(layout: Layout) -> None:
    path = log_of(layout, 1)
    path.write_text("three\n")
    assert [each["path"] for each in finish._records_of(layout.attempt(RUN, CELL, 1))] == ["c0/a1/run.log"]
    Path(run_log.earlier(str(path))).write_text("one\ntwo\n")
    found = finish._records_of(layout.attempt(RUN, CELL, 1))
    assert [(each["path"], each["role"]) for each in found] == [("c0/a1/run.log", "log"), ("c0/a1/run.log.1", "log")]


def test_one_answer_is_bounded(layout: Layout) -> None:
    log_of(layout, 1).write_bytes(b"x" * (run_log.MOST + 10))
    found = run_log.after(layout, RUN, CELL, 1, 0)
    assert (len(found["text"]), found["offset"]) == (run_log.MOST, run_log.MOST)
    assert len(run_log.after(layout, RUN, CELL, 1, found["offset"])["text"]) == 10


@settings(max_examples=50)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=8), st.integers(1, 5))
def test_read_in_pieces_it_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, written: list[str], cut: int
) -> None:
    """Bytes come as they come: a look may fall into the middle of a letter."""
    layout = Layout(str(tmp_path_factory.mktemp("log")))
    path, read, offset = log_of(layout, 1), "", 0
    data = "".join(written).encode()
    path.touch()
    for begin in range(0, len(data) + cut, cut):
        with path.open("ab") as stream:
            stream.write(data[begin : begin + cut])
        found = run_log.after(layout, RUN, CELL, 1, offset)
        read, offset = read + found["text"], found["offset"]
    assert read == "".join(written)
    assert offset == len(data)
