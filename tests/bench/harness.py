# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Timing as ratio: two ways to do one thing, in turn, in one process of measuring, and the median of their ratios.

A ratio survives what a second does not: another machine, another load, another year.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

Action = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """``ours`` and ``theirs`` are seconds of each round, in order; ``limit`` is the ratio that must not be passed."""

    HEAD: ClassVar = "| what | ratio, median of rounds | bar | median seconds, ours / theirs |\n|---|---|---|---|\n"

    name: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    limit: float | None = None

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios, not the ratio of the medians: a slow minute weighs on both ways alike."""
        return statistics.median(ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True))

    @property
    def met(self) -> bool:
        return self.limit is None or self.ratio <= self.limit

    def markdown(self) -> str:
        wanted = "-" if self.limit is None else f"≤ {self.limit:g}{'' if self.met else ' (**not met**)'}"
        seconds = f"{statistics.median(self.ours):.2f} s / {statistics.median(self.theirs):.2f} s"
        return f"| {self.name} | {self.ratio:.2f} × | {wanted} | {seconds} |"


@dataclass(frozen=True)
class Endless(Row):
    """``theirs`` did not end: its seconds are those after which it was ended."""

    @property
    def met(self) -> bool:
        return self.limit is None or self.ratio < self.limit

    def markdown(self) -> str:
        wanted = "-" if self.limit is None else f"≤ {self.limit:g}"
        within = f"did not end within {statistics.median(self.theirs) / 60:g} min"
        return f"| {self.name} | < {self.ratio:.2f} × | {wanted} | {statistics.median(self.ours):.2f} s / {within} |"


@dataclass(frozen=True)
class Figure:
    """A measured value whose bar is a value too, where there is nothing to compare with."""

    HEAD: ClassVar = "| what | figure | bar |\n|---|---|---|\n"

    name: str
    value: float
    unit: str
    limit: float | None = None

    @property
    def met(self) -> bool:
        return self.limit is None or self.value <= self.limit

    def markdown(self) -> str:
        wanted = "-" if self.limit is None else f"≤ {self.limit:g} {self.unit}{'' if self.met else ' (**not met**)'}"
        return f"| {self.name} | {self.value:.3g} {self.unit} | {wanted} |"


def compare(
    name: str,
    ours: Action,
    theirs: Action,
    limit: float | None = None,
    rounds: int = 5,
    before: Action | None = None,
) -> Row:
    """Time ``ours`` and ``theirs`` in turn, ``rounds`` times after one round that does not count.

    :param before: done before every timing and not timed, such as emptying a destination.
    """
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for number in range(rounds + 1):
        # Who goes first alternates, so that neither always finds the caches that the other left.
        order = [("ours", ours), ("theirs", theirs)]
        for key, action in order if number % 2 else reversed(order):
            if before is not None:
                before()
            begun = time.perf_counter()
            action()
            if number:
                seconds[key].append(time.perf_counter() - begun)
    return Row(name, tuple(seconds["ours"]), tuple(seconds["theirs"]), limit)


def machine() -> str:
    """The machine's shape, without its name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} {platform.machine()} cores, {memory:.0f} GiB, Python {platform.python_version()}"


def table(rows: list[Row] | list[Figure]) -> str:
    """Rows of one kind as a table."""
    return rows[0].HEAD + "\n".join(row.markdown() for row in rows) + "\n"
