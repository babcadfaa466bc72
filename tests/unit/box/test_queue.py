# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The end of a queue: one word, and counts that equal the roster."""

from __future__ import annotations

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import judge, queue
from hypothesis import given
from hypothesis import strategies as st

NEXT = {
    judge.RUNNING: judge.WATCH,
    judge.VERIFYING: judge.FINISH,
    judge.DONE: judge.NOTHING,
    judge.FAILED: judge.NOTHING,
}


def verdicts(*states: str) -> dict[str, judge.Verdict]:
    return {f"c{n}": judge.Verdict(state, NEXT.get(state, judge.RUN), 1) for n, state in enumerate(states)}


@pytest.mark.parametrize(
    ("states", "supervised", "end"),
    [
        (["done", "done"], False, queue.OK),
        (["done", "done"], True, queue.OK),
        (["done", "failed"], True, queue.FAILED),
        (["done", "failed", "queued"], True, ""),
        (["done", "failed", "queued"], False, queue.ABORTED),
        (["blocked"], False, queue.ABORTED),
        (["preempted"], False, queue.ABORTED),
        # A trainer outlives its supervisor.
        (["running", "queued"], False, ""),
    ],
)
def test_how_a_queue_ends(states: list[str], supervised: bool, end: str) -> None:
    assert queue.of(verdicts(*states), supervised).end == end


@pytest.mark.parametrize(
    ("states", "end"),
    [
        (["failed", "queued"], queue.ABORTED),
        (["failed", "preempted"], queue.ABORTED),
        # Another task of the array ends its own.
        (["failed", "running", "queued"], ""),
        (["done", "failed"], queue.FAILED),
    ],
)
def test_a_supervisor_that_lives_does_not_go_on_with_a_run_that_halts(states: list[str], end: str) -> None:
    assert queue.of(verdicts(*states), True, halted=True).end == end


@given(st.lists(st.sampled_from(judge.STATES), min_size=1, max_size=8), st.booleans())
def test_law_1_every_cell_of_the_roster_is_counted_once(states: list[str], supervised: bool) -> None:
    known = verdicts(*states)
    found = queue.of(known, supervised)
    assert sorted([*found.done, *found.failed, *found.waiting]) == sorted(known)
    assert (found.end == queue.OK) == (states.count(judge.DONE) == len(states))
    assert not found.waiting or found.end not in (queue.OK, queue.FAILED)
    assert f"{len(found.done)} of {len(states)} done" in found.words()


def test_the_words_name_what_failed_and_what_waits() -> None:
    words = queue.of(verdicts("done", "failed", "queued"), False).words()
    assert words == "QUEUE_ABORTED 1 of 3 done, 1 failed, 1 waiting; failed: c1; waiting: c2"
