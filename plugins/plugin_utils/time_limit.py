# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A deadline for what has none of its own, such as a module on a box that stays silent."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import process


class OutOfTime(BaseException):
    """The time is over. No Exception: connection plugins catch those, and try again."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """OutOfTime out of what is done within it, after ``seconds``; programs that it started then are ended.

    Works in the main thread, as action plugins do. A nearer alarm, such as the ``timeout`` of a task, comes first, and
    a later one is set again.
    """
    began, until = time.monotonic(), signal.getitimer(signal.ITIMER_REAL)[0]
    if 0 < until <= seconds:
        yield
        return
    before = _children()
    former = signal.signal(signal.SIGALRM, _ring)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except OutOfTime:
        _end_children(before)
        raise
    finally:
        signal.signal(signal.SIGALRM, former or signal.SIG_DFL)
        if until:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, until - (time.monotonic() - began)))


def _ring(_signal: int, _frame: Any) -> None:
    raise OutOfTime


def _end_children(but: set[int]) -> None:
    """An ssh that waits for a silent box would wait on."""
    for pid in _children() - but:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM)


def _children() -> set[int]:
    """None where the system does not say, as on a controller without /proc."""
    with contextlib.suppress(OSError):
        return set(process.children(os.getpid()))
    return set()
