# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How much of the time is work: the interval of tenant_checkpoint.py against the best fixed one, simulated.

A run lives ten or more mean times between losses. Losses come independently; after one, a box is rented anew and the
work since the last save is done again. Every interval meets the same losses, so that chance is the same for all.

- *ours*: the very ``Cadence`` and ``Losses`` that a training uses, on the simulated clock, after a guess of the mean,
  and one of the cost until the first save has shown it (off by up to three either way).
- *best fixed*: found by search over fixed intervals, knowing the losses of all runs.
- *static*: Young's sqrt(2 mu C) with the same two guesses. It never changes its mean; its cost is the measured one
  after the first save, as ours is.
- *told*: Young's sqrt(2 mu C) with the true mean and the true cost from the start.

A row compares means of times, for an hour of work, over all runs.
"""

from __future__ import annotations

import importlib
import math
import os
import random
import statistics
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from harness import Row

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "roles" / "deploy" / "files"))
helper = importlib.import_module("tenant_checkpoint")

TITLE = "Checkpoint interval: simulated goodput"
PICTURE = ROOT / "docs" / "checkpoint-interval.svg"
MU_S = 3600.0
RESTART_S = 300.0
LIFE = 10.0  # a run's work in mean times between losses: it lives longer than that
COSTS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2)  # C / mu
GUESSES = (1 / 3, 0.58, 1.0, 1.73, 3.0)  # guess / mu
# The dearer a save, the more chance is in a run, and the sooner it is simulated: so the more there are of it.
RUNS = (1000, 1500, 2000, 3000, 4000, 8000)  # for each pair of a cost and a guess
SHARE_OF_RUNS = float(os.environ.get("YOUNG_DALY_SHARE", "1"))
STEPS_IN_MU = 2000
FIRST_SEED = 20_261_121


class Run:
    """One run: the same losses for whoever asks, as ages of the boxes at which they are lost."""

    def __init__(self, seed: int, save_s: float) -> None:
        self.save_s = save_s
        self._chance = random.Random(seed)
        self.expected_s = save_s * 3.0 ** self._chance.uniform(-1.0, 1.0)
        self._ages: list[float] = []

    def ages(self) -> Iterator[float]:
        number = 0
        while True:
            if number == len(self._ages):
                self._ages.append(self._chance.expovariate(1.0 / MU_S))
            yield self._ages[number]
            number += 1

    def seconds(self, work_s: float, boxes: Callable[[float], Box]) -> float:
        """Time until ``work_s`` of work are saved. ``boxes(clock)`` starts the policy on a new box."""
        clock = done = 0.0
        for age in self.ages():
            box, end = boxes(clock), clock + age
            while True:
                stretch = min(box.stretch_s(work_s - done), work_s - done)
                if clock + stretch + self.save_s > end:
                    break
                clock += stretch + self.save_s
                done += stretch
                box.saved(clock)
                # Sums of steps are off by a rounding: what that leaves is no work, and no save is made for it.
                if done >= work_s - 1e-6:
                    return clock
            box.lost(end)
            clock = end + RESTART_S
        raise AssertionError("losses never end")


class Box:
    """What a policy does on one box."""

    def stretch_s(self, left_s: float) -> float:
        """Seconds of work until the next save, with ``left_s`` to do."""
        raise NotImplementedError

    def saved(self, clock: float) -> None: ...

    def lost(self, clock: float) -> None: ...


class Fixed(Box):
    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s

    def stretch_s(self, left_s: float) -> float:
        return self._interval_s


class Static(Box):
    """Young's formula with a guess of the mean, and one of the cost until its first save has shown it."""

    def __init__(self, guess_s: float, save_s: float, expected_s: float) -> None:
        self._guess_s, self._save_s, self._known_s = guess_s, save_s, expected_s

    def stretch_s(self, left_s: float) -> float:
        return float(helper.young_daly(self._guess_s, self._known_s))

    def saved(self, clock: float) -> None:
        self._known_s = self._save_s


class Ours(Box):
    """A training with tenant_checkpoint.py, from step to step on the simulated clock."""

    STEP_S = MU_S / STEPS_IN_MU

    def __init__(self, guess_s: float, save_s: float, expected_s: float) -> None:
        self._now, self._save_s = 0.0, save_s
        self.losses = helper.Losses(guess_s)
        self.cadence = helper.Cadence(self.losses, clock=lambda: self._now)
        self.cadence.expected_s = expected_s
        self._started = self._exposed_before = 0.0
        self._cost: float | None = None

    def start(self, clock: float) -> Ours:
        self._now = self._started = clock
        self._exposed_before = self.losses.exposed_s
        self.cadence.begin(self._cost)
        self.cadence.step_s = self.STEP_S
        return self

    def stretch_s(self, left_s: float) -> float:
        """Steps until the cadence says that a save is due. It is asked where the answer may change, not at each."""
        left = round(left_s / self.STEP_S)
        self._look(self._now)
        steps, begun = 1, self.cadence._last_save
        while True:
            self.cadence.left_steps = left - steps
            self._look(begun + steps * self.STEP_S)
            if self.cadence.due or steps >= left:
                return steps * self.STEP_S
            # Time without a loss moves the interval on, by less than itself: this comes to its end.
            steps = min(left, max(steps + 1, math.floor(self.cadence.interval_s / self.STEP_S)))

    def _look(self, clock: float) -> None:
        self._now = clock
        self.losses.exposed_s = self._exposed_before + clock - self._started

    def saved(self, clock: float) -> None:
        self._look(clock)
        self.cadence.held(self._save_s)
        self.cadence.written(0.0)
        self._cost = self.cadence.save_s

    def lost(self, clock: float) -> None:
        self._look(clock)
        self.losses.seen += 1


@dataclass
class Pair:
    """Means over the runs at one cost and one guess, in seconds for an hour of work, and their paired differences."""

    cost: float
    guess: float
    ours: float
    static: float
    fixed: float
    told: float
    better_than_static_by: float
    error_of_that: float

    @property
    def loss(self) -> float:
        """Share of the best fixed interval's goodput that ours lacks."""
        return 1.0 - self.fixed / self.ours


@dataclass
class Known:
    """What whoever knows everything beforehand makes of the runs at one cost, in mean seconds of a run."""

    fixed: float
    fixed_interval_s: float
    told: float


class Mean(Row):
    """Mean times as a ratio, with the digits that the number of runs bears."""

    HEAD: ClassVar = "| what | ratio of mean times | bar |\n|---|---|---|\n"

    def markdown(self) -> str:
        return f"| {self.name} | {self.ratio:.4f} × | ≤ {self.limit:g}{'' if self.met else ' (**not met**)'} |"


def simulate(cost: float, guess: float, runs: list[Run], known: Known) -> Pair:
    work_s, save_s = LIFE * MU_S, cost * MU_S
    ours, static = [], []
    for run in runs:
        training = Ours(guess * MU_S, save_s, run.expected_s)
        ours.append(run.seconds(work_s, training.start))
        formula = Static(guess * MU_S, save_s, run.expected_s)
        static.append(run.seconds(work_s, lambda _clock, box=formula: box))
    mean = statistics.fmean(ours)
    gains = [(other - own) / mean for own, other in zip(ours, static, strict=True)]
    scale = 3600.0 / work_s
    return Pair(
        cost,
        guess,
        mean * scale,
        statistics.fmean(static) * scale,
        known.fixed * scale,
        known.told * scale,
        statistics.fmean(gains),
        statistics.stdev(gains) / math.sqrt(len(gains)),
    )


def with_interval(interval_s: float, runs: list[Run]) -> float:
    """Mean seconds of a run with that interval, never changed."""
    box = Fixed(interval_s)
    return statistics.fmean(run.seconds(LIFE * MU_S, lambda _clock: box) for run in runs)


def knowing_all(cost: float, runs: list[Run]) -> Known:
    """The best fixed interval for these runs, by search around the theory's, and Young's told the truth."""
    young_s = helper.young_daly(MU_S, cost * MU_S)
    tried = {young_s * 1.06**number: 0.0 for number in range(-16, 17)}
    for interval_s in tried:
        tried[interval_s] = with_interval(interval_s, runs)
    best_s = min(tried, key=tried.__getitem__)
    return Known(tried[best_s], best_s, tried[young_s])


def number_of_runs(cost: float) -> int:
    return max(2, round(SHARE_OF_RUNS * RUNS[COSTS.index(cost)]))


def runs_of(cost: float) -> list[Run]:
    """The same losses for every guess: what differs between two of them is the guess."""
    first = FIRST_SEED + 100_000 * COSTS.index(cost)
    return [Run(first + seed, cost * MU_S) for seed in range(number_of_runs(cost))]


def _know(cost: float) -> Known:
    return knowing_all(cost, runs_of(cost))


def _simulate(cost: float, guess: float, known: Known) -> Pair:
    return simulate(cost, guess, runs_of(cost), known)


def simulate_all() -> list[Pair]:
    with ProcessPoolExecutor() as pool:
        known = dict(zip(COSTS, pool.map(_know, COSTS), strict=True))
        pairs = [(cost, guess) for cost in COSTS for guess in GUESSES]
        return list(pool.map(_simulate, *zip(*pairs, strict=True), [known[cost] for cost, _guess in pairs]))


_simulated: list[Pair] = []


def details() -> str:
    """Every pair, with the standard error of the paired difference: what is chance and what is not."""
    numbers = [number_of_runs(cost) for cost in COSTS]
    lines = [
        f"{len(GUESSES) * sum(numbers):,} runs of {LIFE:g} mean times of work each: for each pair at these costs "
        f"{', '.join(map(str, numbers))}.",
        "",
        "Every pair of a cost and a guess: time of ours over the best fixed interval's; and how much more time than",
        "ours the static formula with the same guesses takes, with the standard error of the paired difference.",
        "",
        "| C/mu | " + " | ".join(f"guess {guess:.2f} mu" for guess in GUESSES) + " |",
        "|---|" + "---|" * len(GUESSES),
    ]
    for cost in COSTS:
        own = [pair for pair in _simulated if pair.cost == cost]
        cells = [
            f"{pair.ours / pair.fixed:.4f}; {100 * pair.better_than_static_by:+.2f} ± {100 * pair.error_of_that:.2f} %"
            for pair in own
        ]
        lines.append(f"| {cost:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def rows() -> list[Row]:
    pairs = _simulated[:] = simulate_all()
    if SHARE_OF_RUNS == 1:  # with fewer runs it shows chance, and the one in the docs is of all
        PICTURE.write_text(picture(pairs), encoding="utf-8")
    by_cost = {cost: [pair for pair in pairs if pair.cost == cost] for cost in COSTS}
    return [*against_best(by_cost), *against_told(by_cost), *against_static(pairs)]


def against_best(by_cost: dict[float, list[Pair]]) -> Iterator[Row]:
    for cost, own in by_cost.items():
        worst = max(own, key=lambda pair: pair.loss)
        limit = round(1 / 0.98 if cost <= 0.05 else 1 / 0.95, 2)
        yield Mean(f"C/mu {cost:g}, worst guess: ours / best fixed interval", (worst.ours,), (worst.fixed,), limit)


def against_told(by_cost: dict[float, list[Pair]]) -> Iterator[Row]:
    """That the formula given the truth is at most 1 % better: than ours given it too, and than ours given any guess."""
    for cost, own in by_cost.items():
        what = f"C/mu {cost:g}, guess right: ours / static formula told all"
        yield from (Mean(what, (pair.ours,), (pair.told,), 1.01) for pair in own if pair.guess == 1.0)
    for cost, own in by_cost.items():
        mean = statistics.fmean(pair.ours for pair in own)
        what = f"C/mu {cost:g}, mean over the guesses: ours / static formula told all"
        yield Mean(what, (mean,), (own[0].told,), 1.01)


def against_static(pairs: list[Pair]) -> Iterator[Row]:
    for guess in GUESSES:
        if guess == 1.0:
            continue
        worst = min((pair for pair in pairs if pair.guess == guess), key=lambda pair: pair.better_than_static_by)
        what = f"guess {guess:.2f} mu, worst cost (C/mu {worst.cost:g}): ours / static formula with the same guesses"
        yield Mean(what, (worst.ours,), (worst.static,), 1.0)


# ---------------------------------------------------------------------------------------------- the picture

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 640, 330, 56, 34, 46
COLOURS = {"static": "#c2410c", "ours": "#0f766e"}


def picture(pairs: list[Pair]) -> str:
    """Goodput lost against the best fixed interval, over C/mu: the span over the guesses, and their mean."""
    highest = max(1.0 - pair.fixed / pair.static for pair in pairs)
    top = math.ceil(highest * 50) / 50

    def place(cost: float, lost: float) -> str:
        x = LEFT + (math.log(cost / COSTS[0]) / math.log(COSTS[-1] / COSTS[0])) * (WIDTH - LEFT - 20)
        y = TOP + (1.0 - max(0.0, lost) / top) * (HEIGHT - TOP - BOTTOM)
        return f"{x:.1f},{y:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="18" fill="#222">Goodput lost against the best fixed interval: mean, and span over '
        "guesses of mu from 1/3 to 3 times the truth</text>",
    ]
    for line in range(0, round(top * 100) + 1, 4):
        x, y = place(COSTS[0], line / 100).split(",")
        parts.append(f'<path d="M{x} {y}H{WIDTH - 20}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{float(y) + 4:.1f}" text-anchor="end" fill="#555">{line} %</text>')
    for cost in COSTS:
        x = place(cost, 0.0).split(",")[0]
        parts.append(f'<text x="{x}" y="{HEIGHT - 26}" text-anchor="middle" fill="#555">{cost:g}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle" fill="#222">C / mu</text>')
    for name, colour in COLOURS.items():
        lost = {c: [1 - p.fixed / getattr(p, name) for p in pairs if p.cost == c] for c in COSTS}
        upper = [place(cost, max(lost[cost])) for cost in COSTS]
        lower = [place(cost, min(lost[cost])) for cost in reversed(COSTS)]
        middle = [place(cost, statistics.fmean(lost[cost])) for cost in COSTS]
        parts.append(f'<polygon points="{" ".join(upper + lower)}" fill="{colour}" fill-opacity="0.15"/>')
        parts.append(f'<polyline points="{" ".join(middle)}" fill="none" stroke="{colour}" stroke-width="2"/>')
    for number, (name, colour) in enumerate(COLOURS.items()):
        words = {"static": "static: Young's formula with the guess", "ours": "tenant_checkpoint.py"}[name]
        y = TOP + 18 + 18 * number
        parts.append(f'<path d="M{LEFT + 14} {y - 4}h22" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{LEFT + 42}" y="{y}" fill="#222">{words}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
