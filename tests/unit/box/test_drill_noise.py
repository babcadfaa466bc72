# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How often scattering losses mislead the drill that has no step made twice."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box.drill_noise import DIFFERS, JOINS, UNCLEAR, joins

RUNS = 400


def verdicts(count: int, scatter: float, fall: float, fresh: bool) -> Counter[str]:
    """Over many runs whose loss falls towards ``1 - fall`` of the first and scatters by that part of itself."""
    draw = random.Random(count)
    found: Counter[str] = Counter()
    for _run in range(RUNS):
        level = [2.3 * (1 - fall + fall * math.exp(-number / 5)) for number in range(count + 1)]
        told = [each * (1 + draw.gauss(0, scatter)) for each in level]
        again = level[0] * (1 + draw.gauss(0, scatter))
        found[joins(told[:-1], again if fresh else told[-1], 0.05)] += 1
    return found


@pytest.mark.parametrize("scatter", [0.0, 0.05, 0.2])
@pytest.mark.parametrize("count", [8, 12, 30])
def test_a_run_that_goes_on_is_seldom_refused_and_one_without_its_weights_seldom_passed(
    count: int, scatter: float
) -> None:
    good, fresh = verdicts(count, scatter, 0.9, fresh=False), verdicts(count, scatter, 0.9, fresh=True)
    assert good[DIFFERS] <= 0.02 * RUNS, good
    assert good[JOINS] > 0.6 * RUNS, good
    assert fresh[JOINS] <= 0.05 * RUNS, fresh
    assert fresh[DIFFERS] > 0.5 * RUNS, fresh
    if scatter <= 0.05:
        assert min(good[JOINS], fresh[DIFFERS]) > 0.98 * RUNS


@pytest.mark.parametrize("scatter", [0.02, 0.2])
@pytest.mark.parametrize("fresh", [False, True])
def test_as_long_as_nothing_was_learnt_nothing_can_be_told(scatter: float, fresh: bool) -> None:
    assert verdicts(12, scatter, 0.02, fresh)[UNCLEAR] > 0.95 * RUNS
