# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""When a disk will be full: exact when it fills steadily, silent when it does not, blind to the saw of checkpoints."""

from __future__ import annotations

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import forecast
from hypothesis import example, given
from hypothesis import strategies as st

GB = 10**9


def gone(free: list[float], every_s: float = 30.0) -> float | None:
    return forecast.gone_in_s([(n * every_s, each) for n, each in enumerate(free)], (len(free) - 1) * every_s)


@given(rate=st.floats(1e3, 1e9), left_s=st.floats(1, forecast.LONGEST_S * 0.99), samples=st.integers(21, 200))
def test_a_steady_fill_is_foretold(rate: float, left_s: float, samples: int) -> None:
    free = [rate * (left_s + 30.0 * (samples - 1 - n)) for n in range(samples)]
    assert gone(free) == pytest.approx(left_s, rel=1e-3, abs=1)


@given(st.lists(st.floats(0, 1e15), max_size=150), st.floats(1, 120))
@example([1.0, 1.0, 1.0, 5e-324, 0.0, 0.0, 0.0, 0.0], 86.0)  # less by what is nothing in a second
def test_a_forecast_is_never_negative_nor_beyond_the_horizon(free: list[float], every_s: float) -> None:
    found = gone(free, every_s)
    assert found is None or 0 <= found <= forecast.LONGEST_S


@given(st.lists(st.integers(0, 10**12), min_size=2, max_size=150))
def test_a_disk_that_only_gains_space_is_never_full(free: list[int]) -> None:
    assert gone([float(each) for each in sorted(free)]) is None


@pytest.mark.parametrize("period", [2, 4, 10, 20, 40])
def test_checkpoints_that_come_and_go_fill_nothing(period: int) -> None:
    saw = [100 * GB - 10 * GB * (n % period) / period for n in range(122)]
    # A saw tooth must fit into half of the window.
    for length in range(max(22, 2 * period + 2), 122):
        assert gone(saw[:length]) is None


def test_a_saw_that_grows_is_foretold_by_its_lowest_points() -> None:
    # Every five minutes 10 GB are written and 9 of them removed: 12 GB an hour.
    saw = [200 * GB - GB * (n // 10) - (9 * GB if n % 10 == 9 else 0) for n in range(120)]
    assert gone(saw) == pytest.approx((saw[-1] / (12 * GB)) * 3600, rel=0.02)


def test_too_little_was_seen_for_a_word() -> None:
    assert gone([100.0 - n for n in range(20)]) is None
    assert gone([100.0 - n for n in range(21)]) is not None
    assert gone([]) is None


def test_what_lies_before_the_window_is_forgotten() -> None:
    # Data were unpacked, then nothing more was written.
    free = [1000.0 - 5 * n for n in range(100)] + [500.0] * 121
    assert gone(free) is None
