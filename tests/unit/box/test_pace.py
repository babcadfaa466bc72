# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The rate from observed steps: exact when steady, null when unknown, never negative, lower in a silence."""

from __future__ import annotations

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box.pace import MOST_SEEN, Pace
from hypothesis import given
from hypothesis import strategies as st

PAIRS = st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 10**9)), max_size=150)


def test_nothing_is_known_before_two_steps_were_seen_apart() -> None:
    pace = Pace()
    assert pace.rate(0.0) is None
    pace.note(5, 10.0)
    pace.note(5, 20.0)
    assert pace.rate(30.0) is None
    pace.note(25, 30.0)
    # The count began when step 5 was first seen.
    assert pace.rate(30.0) == 1.0


@given(rate=st.floats(0.001, 1000), every=st.integers(1, 600), looks=st.integers(3, 300))
def test_a_steady_trainer_has_its_rate(rate: float, every: int, looks: int) -> None:
    pace = Pace()
    for look in range(looks):
        pace.note(int(rate * every * look), float(every * look))
    found = pace.rate(float(every * (looks - 1)))
    if found is None:
        assert rate * every * (looks - 1) < 1
        return
    # One step more or less than what the looks cut off, over the shortest window there can be.
    assert found == pytest.approx(rate, abs=2 / every + rate * 0.7)
    assert looks < 30 or rate * every < 10 or found == pytest.approx(rate, rel=0.05)


@given(PAIRS, st.floats(0, 2e6))
def test_a_rate_is_positive_or_unknown_whatever_was_seen(pairs: list[tuple[float, int]], now: float) -> None:
    pace = Pace()
    for at, step in pairs:
        pace.note(step, at)
    rate = pace.rate(now)
    assert rate is None or rate > 0
    assert len(pace.as_list()) <= MOST_SEEN


def test_a_trainer_that_goes_back_to_a_checkpoint_is_counted_anew() -> None:
    pace = Pace([(0.0, 0), (10.0, 100)])
    pace.note(50, 20.0)
    assert pace.rate(20.0) is None
    pace.note(60, 30.0)
    assert pace.rate(30.0) == 1.0


def test_a_clock_that_stands_before_what_was_kept_begins_anew() -> None:
    pace = Pace([(1000.0, 10), (1010.0, 20)])
    pace.note(30, 5.0)
    pace.note(40, 15.0)
    assert pace.rate(15.0) == 1.0


def test_a_longer_silence_than_usual_lowers_the_rate_and_a_usual_one_does_not() -> None:
    pace = Pace([(0.0, 0), (10.0, 10), (20.0, 20)])
    assert pace.rate(29.0) == 1.0
    assert pace.rate(50.0) == 0.5
    assert pace.rate(50.0) > pace.rate(500.0) > 0


@given(PAIRS)
def test_what_is_kept_goes_on_as_if_nothing_had_happened(pairs: list[tuple[float, int]]) -> None:
    pace = Pace()
    for at, step in sorted(pairs):
        pace.note(step, round(at, 3))
    kept = Pace([(at, int(step)) for at, step in pace.as_list()])
    assert kept.as_list() == pace.as_list()
