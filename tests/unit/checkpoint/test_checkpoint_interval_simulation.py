# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The simulation behind docs/checkpoint-interval.svg, with few runs: it can fail, and the interval does its work."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
import young_daly as bench

RUNS = 120


@pytest.mark.parametrize("cost", [0.1])
def test_with_a_guess_three_times_off_it_stays_near_the_best_interval_and_the_static_one_does_not(cost: float) -> None:
    runs = [bench.Run(seed, cost * bench.MU_S) for seed in range(RUNS)]
    known = bench.knowing_all(cost, runs)
    for guess in (1 / 3, 3.0):
        pair = bench.simulate(cost, guess, runs, known)
        assert 0.0 <= pair.loss < 0.05
        assert pair.better_than_static_by > 0.0


def test_the_search_finds_the_interval_that_theory_gives() -> None:
    runs = [bench.Run(seed, 0.02 * bench.MU_S) for seed in range(40)]
    known = bench.knowing_all(0.02, runs)
    best_s = bench.helper.best_interval(bench.MU_S, 0.02 * bench.MU_S)
    assert known.fixed_interval_s == pytest.approx(best_s, rel=0.4)
    assert known.fixed <= known.told


def test_a_run_meets_the_same_losses_whatever_the_interval() -> None:
    run = bench.Run(7, 10.0)
    box = bench.Fixed(300.0)
    assert run.seconds(20_000, lambda _clock: box) == run.seconds(20_000, lambda _clock: box)
    assert run.seconds(20_000, lambda _clock: box) > 20_000


def test_no_save_is_made_for_a_rounding_of_the_last_step() -> None:
    """Sums of equal parts of the work rarely make up the whole to the last bit."""
    for parts in range(3, 200):
        run, box = bench.Run(1, save_s=10.0), Counting(36_000.0 / parts)
        run._ages = [1e12]
        run.seconds(36_000.0, lambda _clock, box=box: box)
        assert box.saves == parts


def test_the_static_formula_knows_the_cost_from_its_first_save_on_and_never_the_mean() -> None:
    box = bench.Static(guess_s=7200.0, save_s=100.0, expected_s=25.0)
    assert box.stretch_s(1e9) == pytest.approx(600.0)
    box.lost(900.0)
    assert box.stretch_s(1e9) == pytest.approx(600.0)
    box.saved(1700.0)
    assert box.stretch_s(1e9) == pytest.approx(1200.0)


class Counting(bench.Fixed):
    saves = 0

    def saved(self, clock: float) -> None:
        self.saves += 1


PAIRS = [bench.Pair(cost, guess, 1.1, 1.2, 1.05, 1.07, 0.1, 0.01) for cost in bench.COSTS for guess in bench.GUESSES]


@pytest.mark.parametrize(("share", "drawn"), [(1.0, True), (0.02, False)])
def test_the_picture_of_the_docs_is_of_all_runs_or_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, drawn: bool
) -> None:
    monkeypatch.setattr(bench, "SHARE_OF_RUNS", share)
    monkeypatch.setattr(bench, "PICTURE", tmp_path / "picture.svg")
    monkeypatch.setattr(bench, "simulate_all", lambda: PAIRS)
    assert bench.rows()
    assert (tmp_path / "picture.svg").exists() == drawn


def test_the_picture_is_small_and_light() -> None:
    text = bench.picture(PAIRS)
    assert text.startswith("<svg")
    assert 'fill="white"' in text
    assert len(text) < 8000
