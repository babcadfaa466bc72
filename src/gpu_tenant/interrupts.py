# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Ctrl-C, SIGTERM and a lost terminal: the first asks to stop at the next safe point, the second to stop now."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

FINISH_STEP_S = 60.0


class Interrupts:
    """Counts requests to stop; waits that end early when one comes."""

    def __init__(self) -> None:
        self.count = 0
        self.first_at = 0.0
        self.on_first: Callable[[], None] = lambda: None
        self._event = threading.Event()

    def request(self) -> None:
        self.count += 1
        self._event.set()
        if self.count == 1:
            self.first_at = time.monotonic()
            self.on_first()

    @property
    def requested(self) -> bool:
        return self.count > 0

    def must_abort(self) -> bool:
        """A second request, or the step in progress took longer than ``FINISH_STEP_S`` after the first."""
        return self.count > 1 or (self.requested and time.monotonic() - self.first_at > FINISH_STEP_S)

    def check(self) -> None:
        """Raise TenantFailure (``interrupted``) when a stop was asked for. Call where stopping is safe."""
        if self.requested:
            raise TenantFailure("interrupted", "stopped on request", fix="the same command continues from here")

    def wait(self, seconds: float) -> None:
        """Wait; ends early and raises when a stop is asked for."""
        self._event.wait(max(seconds, 0.0))
        self.check()

    @contextlib.contextmanager
    def installed(self) -> Iterator[Interrupts]:
        """Handle SIGINT, SIGTERM and SIGHUP inside the block; what was there before comes back after it.

        Under nohup a terminal that is lost changes nothing.
        """

        def handler(signum: int, frame: FrameType | None) -> None:
            # One lost terminal is told twice or thrice, by the kernel and by shells: it is nobody's second request.
            if signum != signal.SIGHUP or not self.requested:
                self.request()

        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, handler) for number in numbers}
        try:
            yield self
        finally:
            for number, previous in before.items():
                signal.signal(number, previous)


@contextlib.contextmanager
def taken_as_ctrl_c() -> Iterator[None]:
    """Where nothing is at work that a stop would have to wait for, SIGTERM and a lost terminal end a command as Ctrl-C
    does: with a word and an exit code. :meth:`Interrupts.installed` takes its place for as long as something is."""

    def handler(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    taken = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in taken:
            signal.signal(number, handler)
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
