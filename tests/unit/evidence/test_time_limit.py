# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A deadline round what has none, in real time: an alarm of the kernel's."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator

import pytest
from ansible_collections.tenant.gpu.plugins.plugin_utils.time_limit import OutOfTime, time_limit

FOREVER = ["sleep", "600"]


@pytest.fixture(autouse=True)
def _no_alarm_is_left() -> Iterator[None]:
    yield
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


def test_what_takes_too_long_is_ended_with_the_programs_that_it_started() -> None:
    started: list[subprocess.Popen[bytes]] = []

    def wait_for_another() -> None:
        started.append(subprocess.Popen(FOREVER))
        started[0].wait()

    with subprocess.Popen(FOREVER) as older:
        # Enough for a start on a busy machine.
        with pytest.raises(OutOfTime), time_limit(3):
            wait_for_another()
        assert started[0].wait(timeout=600) == -signal.SIGTERM
        assert older.poll() is None, "what ran before is none of its business"
        older.kill()


def test_what_is_done_in_time_is_left_alone() -> None:
    with time_limit(600):
        done = subprocess.run(["true"], check=True)
    assert done.returncode == 0


def test_no_handler_of_exceptions_keeps_it() -> None:
    """A connection plugin takes any Exception for a lost connection, and tries again."""
    with pytest.raises(OutOfTime), time_limit(0.1), contextlib.suppress(Exception):
        signal.pause()


def test_a_nearer_alarm_comes_first_and_a_later_one_is_set_again() -> None:
    """Such as that of the task's own ``timeout``."""

    class OfTheTask(Exception):
        pass

    def ring(_signal: int, _frame: object) -> None:
        raise OfTheTask

    signal.signal(signal.SIGALRM, ring)
    try:
        with pytest.raises(OfTheTask):  # noqa: PT012 - it may ring at any moment from here on
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with time_limit(600):
                signal.pause()
        signal.setitimer(signal.ITIMER_REAL, 600)
        with pytest.raises(OutOfTime), time_limit(0.1):
            signal.pause()
        assert 500 < signal.getitimer(signal.ITIMER_REAL)[0] <= 600
        assert signal.getsignal(signal.SIGALRM) is ring
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
