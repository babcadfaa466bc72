# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""An errand: one call on a thread of its own, so that whoever sent it never waits for a driver or a kernel."""

from __future__ import annotations

import os
import signal
import threading
from typing import Callable, Generic, TypeVar, cast

T = TypeVar("T")


class Errand(Generic[T]):
    """Starts ``call`` at once. ``is_back`` tells when ``answer`` or ``problem`` is there.

    :param wake: send this process a SIGCHLD at the end, which ends the pause of a supervisor that waits for it.
    """

    def __init__(self, name: str, call: Callable[[], T], wake: bool = False) -> None:
        self.answer: T | None = None
        self.problem = ""
        self._error: Exception | None = None
        self._call, self._wake = call, wake
        self._back = threading.Event()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    @property
    def is_back(self) -> bool:
        return self._back.is_set()

    def wait(self, seconds: float) -> bool:
        """Whether it is back within ``seconds``."""
        return self._back.wait(seconds)

    def result(self) -> T:
        """What the call gave, or raised; for an errand that is back."""
        if self._error is not None:
            raise self._error
        return cast(T, self.answer)

    def _run(self) -> None:
        try:
            self.answer = self._call()
        except Exception as error:
            # Told by whoever sent it: a thread has nobody to raise to.
            self.problem = f"{type(error).__name__}: {error}"
            self._error = error
        self._back.set()
        if self._wake:
            os.kill(os.getpid(), signal.SIGCHLD)
