# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Whether a loss goes on from those before it, where no step was made twice and so none can be compared with itself.

The losses of single batches scatter, so the next one may lie off the last by chance; and as long as they have not
fallen by more than they scatter, a model that has lost its weights would show the same. Pure.
"""

from __future__ import annotations

import statistics

JOINS, DIFFERS, UNCLEAR = "joins", "differs", "unclear"
# The last losses show scatter and trend. So few of them may lie in a line by chance: they are taken to scatter by this
# part of themselves.
_LAST = 10
_FEW = 6
_SCATTER_OF_FEW = 0.25
# Where they end is told by more than one, of which any may be off.
_END = 3


def joins(known: list[float], loss: float, tolerance: float) -> str:
    """``JOINS``: it is where they end, and that is far from where they began. ``DIFFERS``: it is not where they end.

    :param known: the losses before, from the first one.
    """
    first, last = known[:_LAST], known[-_LAST:]
    scatter, near = _scatter(last), tolerance * abs(last[-1])
    if _distance(loss, _ends(last)) > 2 * scatter + near:
        return DIFFERS
    slack = 2 * max(scatter, _scatter(first)) + near
    fallen = min(abs(loss - known[0]), _distance(known[0], _ends(last))) > slack
    return JOINS if fallen and len(known) >= _END else UNCLEAR


def _scatter(last: list[float]) -> float:
    """By how much one of them lies off the middle of its neighbours: a curve that falls steeply does not scatter."""
    off = [abs(here - (one + two) / 2) for one, here, two in zip(last, last[1:], last[2:])]
    least = _SCATTER_OF_FEW * max(abs(each) for each in last) if len(last) < _FEW else 0.0
    return max([least, *off])


def _ends(last: list[float]) -> tuple[float, float]:
    """Between which losses the next one would lie if none scattered: where the last ones are, or further on."""
    end = statistics.median(last[-_END:]) if len(last) >= _END else last[-1]
    trend = statistics.median([two - one for one, two in zip(last, last[1:])]) if len(last) > 1 else 0.0
    return min(end, end + 2 * trend), max(end, end + 2 * trend)


def _distance(loss: float, ends: tuple[float, float]) -> float:
    return max(ends[0] - loss, loss - ends[1], 0.0)
