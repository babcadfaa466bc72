# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The verdict of a resume drill, as a table: which metrics prove that a run goes on, and which that it does not."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box.drill_verdict import judge
from hypothesis import given
from hypothesis import strategies as st

Lines = list[dict[str, Any]]


def lines(first: int, last: int, every: int = 1, shift: float = 0.0, resumed: int | None = None) -> Lines:
    found: Lines = [] if resumed is None else [{"resumed_from": resumed, "path": "x"}]
    return found + [{"step": step, "loss": 10.0 / step + shift} for step in range(first, last + 1, every)]


def progress_bar(*steps: int) -> Lines:
    return [{"step": step, "loss": 10.0 / step} for step in steps]


def from_losses(first: int, *losses: float) -> Lines:
    return [{"step": step, "loss": loss} for step, loss in enumerate(losses, first)]


def told_every(first: int, *losses: float) -> Lines:
    """A line at every hundredth step."""
    return [{"step": first + 100 * number, "loss": loss} for number, loss in enumerate(losses)]


def resumed(step: int, *steps: int) -> Lines:
    return [{"resumed_from": step, "path": "x"}, *progress_bar(*steps)]


def silent(found: Lines) -> Lines:
    return [{"step": line["step"]} for line in found]


def deterministic(found: Lines) -> Lines:
    return [{"resumed_from": 5, "deterministic": True}, *found]


BEFORE = lines(1, 12)
TENS = lines(10, 80, every=10)
TWENTIES = lines(60, 120, every=20)
BAR = progress_bar(3, 11, 19, 28, 36, 44)
# Of single small batches: they scatter by a third.
NOISY = (3.6, 2.9, 2.7, 2.0, 2.2, 1.5, 1.7, 1.2, 1.4, 0.9, 1.1, 0.7, 1.0, 0.6, 0.9, 0.8, 0.5, 0.9, 0.6, 0.8)
FLAT = (2.30, 2.33, 2.28, 2.31, 2.29, 2.32, 2.30, 2.27, 2.31, 2.29, 2.30, 2.28)
NAN: Lines = [{"step": 21, "loss": None}]
FEW = told_every(100, 2.3, 1.1, 0.6, 0.4)
TWO = told_every(100, 2.3, 0.5)
CASES = {
    "goes on": (BEFORE, lines(6, 12), 5, "passed", 7),
    "goes on within the tolerance": (BEFORE, lines(6, 12, shift=0.02), 5, "passed", 7),
    "goes on bit for bit": (BEFORE, deterministic(lines(6, 12)), 5, "passed", 7),
    "deterministic, one bit off": (BEFORE, deterministic(lines(6, 12, shift=1e-9)), 5, "loss_differs", 7),
    "other weights": (BEFORE, lines(6, 12, shift=3.0), 5, "loss_differs", 7),
    "not a number": (BEFORE, [{"step": 6, "loss": None}, *lines(7, 12)], 5, "loss_differs", 7),
    "from zero": (BEFORE, lines(1, 12), 5, "started_again", 0),
    "from an older checkpoint": (BEFORE, lines(3, 12), 5, "started_again", 0),
    "from the saved step itself": (BEFORE, lines(5, 12), 5, "started_again", 0),
    "leaves one out": (BEFORE, lines(7, 12), 5, "steps_skipped", 0),
    "far ahead": (BEFORE, lines(40, 50), 5, "steps_skipped", 0),
    "made nothing": (BEFORE, [], 5, "no_progress", 0),
    "only says that it resumed": (BEFORE, [{"resumed_from": 5}], 5, "no_progress", 0),
    "a line at every tenth step": (lines(10, 80, every=10), lines(60, 90, every=10), 55, "passed", 3),
    "every tenth, one left out": (lines(10, 80, every=10), lines(70, 90, every=10), 55, "steps_skipped", 0),
    "the name has no step": (BEFORE, lines(6, 12, resumed=5), None, "passed", 7),
    "the name has no step, from zero": (BEFORE, lines(1, 12), None, "started_again", 0),
    "neither name nor trainer says the step": (BEFORE, lines(6, 12), None, "passed", 7),
    "neither says the step, and one is left out": (BEFORE, lines(14, 15), None, "steps_skipped", 0),
    "neither says the step, other weights": (BEFORE, lines(6, 12, shift=3.0), None, "loss_differs", 7),
    "the name has no step, from zero, every tenth": (TENS, TENS, None, "started_again", 0),
    "the name has no step, from an early checkpoint": (TENS, lines(20, 90, every=10), None, "unclear", 0),
    "the name has no step, every tenth": (TENS, lines(70, 90, every=10), None, "passed", 2),
    "the name has no step, one step was made": (lines(1, 1), lines(2, 3), None, "unclear", 0),
    "the name has no step, a bar from zero": (BAR, progress_bar(5, 13, 21, 28), None, "unclear", 0),
    "the name has no step, a bar": (BAR, progress_bar(36, 44, 53), None, "passed", 2),
    "the name has no step, a bar from zero, as said": (BAR, resumed(0, 5, 13, 21), None, "unclear", 0),
    "the name counts something else, from zero": (TENS, TENS, 2, "unclear", 0),
    "the name counts something else, a bar from zero": (BAR, progress_bar(5, 13, 21, 28), 3, "unclear", 0),
    "saved before the first line, as the trainer says": (TENS, lines(10, 30, every=10, resumed=5), 5, "passed", 3),
    "saved at the first step": (lines(1, 4), lines(2, 4), 1, "passed", 3),
    "a bar that shows a step now and then": (progress_bar(1, 9, 17, 25, 31), progress_bar(28, 31, 36), 20, "passed", 1),
    "a bar, far ahead": (progress_bar(1, 9, 17, 25, 31), progress_bar(29, 36), 20, "steps_skipped", 0),
    "a loss now and then": (BEFORE, [{"step": 6}, *lines(7, 9), {"step": 10}], 5, "passed", 3),
    "steps alone": (silent(BEFORE), silent(lines(6, 12)), 5, "no_losses", 0),
    "steps alone after the kill": (BEFORE, silent(lines(6, 12)), 5, "no_losses", 0),
    "steps alone, from zero": (silent(BEFORE), silent(lines(1, 12)), 5, "started_again", 0),
    "saved at the very kill": (BEFORE, lines(13, 15), 12, "passed", 0),
    "saved at the very kill, other weights": (BEFORE, lines(13, 15, shift=50.0), 12, "loss_differs", 0),
    "saved at the very kill, fresh weights": (BEFORE, from_losses(13, 10.0, 5.0, 3.3), 12, "loss_differs", 0),
    "saved at the very kill, fresh weights learn": (FEW, told_every(500, 2.3, 1.1), 400, "loss_differs", 0),
    "saved at the very kill, fresh weights are worse": (TWO, told_every(300, 2.4), 200, "loss_differs", 0),
    "saved at the very kill, after few losses": (FEW, told_every(500, 0.35, 0.3), 400, "passed", 0),
    "saved at the very kill, after one loss": (lines(1, 1), from_losses(2, 9.9, 9.0), 1, "unclear", 0),
    "saved at the very kill, it has not learnt": (from_losses(1, *FLAT), from_losses(13, 2.28), 12, "unclear", 0),
    "saved at the very kill, noisy": (from_losses(1, *NOISY), from_losses(21, 0.9, 0.5), 20, "passed", 0),
    "saved at the very kill, noisy, an outlier": (from_losses(1, *NOISY), from_losses(21, 1.2), 20, "passed", 0),
    "saved at the very kill, noisy, after an outlier": (
        from_losses(1, *NOISY, 1.3),
        from_losses(22, 0.6),
        21,
        "passed",
        0,
    ),
    "saved at the very kill, noisy, fresh": (from_losses(1, *NOISY), from_losses(21, 3.4, 3.0), 20, "loss_differs", 0),
    "saved at the very kill, noisy, not a number": (from_losses(1, *NOISY), NAN, 20, "loss_differs", 0),
    "saved at the very kill, no losses": ([{"step": 12}], [{"step": 13}], 12, "no_losses", 0),
    "true is no step": ([{"step": True, "loss": 1.0}, *BEFORE], [{"step": True}, *lines(6, 8)], 5, "passed", 3),
}


@pytest.mark.parametrize("name", CASES)
def test_the_table(name: str) -> None:
    before, after, saved, reason, compared = CASES[name]
    verdict = judge(before, after, saved)
    assert (verdict.reason, verdict.compared) == (reason, compared), verdict
    assert verdict.passed == (reason == "passed")
    assert verdict.why


def named(*steps: int) -> Lines:
    return [{"step": step} for step in steps]


LONG = lines(1, 56)
# Of logs and event files, which name steps that are not made there: "Resuming from step 50", a bar drawn at 0 of 100.
ANNOUNCED = {
    "names the saved step": (LONG, named(50) + lines(51, 58), 50, "passed", 6),
    "a bar at zero": (LONG, named(0) + lines(51, 58), 50, "passed", 6),
    "both": (LONG, named(0, 50) + lines(51, 58), 50, "passed", 6),
    "names another": (LONG, named(45) + lines(51, 58), 50, "passed", 6),
    "names it, other weights": (LONG, named(50) + lines(51, 58, shift=3.0), 50, "loss_differs", 6),
    "names it, leaves some out": (LONG, named(50) + lines(53, 58), 50, "steps_skipped", 0),
    "names it, no losses": (silent(LONG), named(50) + silent(lines(51, 58)), 50, "no_losses", 0),
    "names it, its name has no step": (LONG, named(50) + lines(51, 58), None, "passed", 6),
    "a bar at zero, its name has no step": (LONG, named(0) + lines(51, 58), None, "passed", 6),
    "from zero": (LONG, lines(1, 3), 50, "started_again", 0),
    "from zero, no losses": (silent(LONG), named(1, 2, 3), 50, "started_again", 0),
    "a bar at zero, from zero": (LONG, named(0) + lines(1, 3), 50, "started_again", 0),
    "a bar at zero, from zero, its name has no step": (LONG, named(0) + lines(1, 3), None, "started_again", 0),
    "names it, from zero": (LONG, named(50) + lines(1, 3), 50, "started_again", 0),
    "from an older one, losses now and then": (LONG, named(49, 50) + lines(51, 58), 50, "unclear", 0),
    "made the saved step again": (LONG, lines(50, 58), 50, "started_again", 0),
    "its loss is no number": (LONG, [{"step": 50, "loss": float("nan")}, *lines(51, 58)], 50, "started_again", 0),
    "names a step and tells no more": (LONG, named(50), 50, "unclear", 0),
    "from zero, the first without a loss": (named(40) + TWENTIES, named(40) + TWENTIES, 50, "unclear", 0),
    "from zero, the first, which was saved": (named(10) + TENS[1:], named(10) + TENS[1:], 10, "unclear", 0),
}


@pytest.mark.parametrize("name", ANNOUNCED)
def test_a_step_that_is_only_named_was_not_made(name: str) -> None:
    before, after, saved, reason, compared = ANNOUNCED[name]
    verdict = judge(before, after, saved, announces=True)
    assert (verdict.reason, verdict.compared) == (reason, compared), verdict
    assert verdict.why


@pytest.mark.parametrize("step", [0, 50])
def test_each_step_of_the_metrics_was_made(step: int) -> None:
    assert judge(LONG, named(step) + lines(51, 58), 50).reason == "started_again"


def test_without_losses_it_says_what_was_compared() -> None:
    verdict = judge(silent(BEFORE), silent(lines(6, 12)), 5)
    assert "went on from step 5 with 6" in verdict.why
    assert "only steps were compared" in verdict.why
    assert verdict.resumed_at_step == 6


def test_the_record_shows_the_losses_and_the_worst_of_them() -> None:
    verdict = judge(lines(1, 9), lines(6, 9, shift=0.05), 5, tolerance=0.2)
    assert verdict.losses[0] == (6, 10 / 6, 10 / 6 + 0.05)
    assert verdict.worst_difference == pytest.approx(0.05 / (10 / 9 + 0.05))
    assert (verdict.resumed_at_step, verdict.tolerance, verdict.deterministic) == (6, 0.2, False)


@given(st.integers(1, 40), st.integers(1, 20), st.integers(0, 60))
def test_it_passes_only_where_the_next_step_is_the_first(saved: int, beyond: int, first: int) -> None:
    before = lines(1, saved + beyond)
    verdict = judge(before, lines(max(first, 1), saved + beyond + 3), saved)
    assert verdict.passed == (first == saved + 1)
