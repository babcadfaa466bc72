# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The end of what a program says on standard error. A stranger's behind ssh: no more is kept."""

from __future__ import annotations

import os
import threading
from typing import Any

_KEPT = 4096
_CHUNK = 64 * 1024
# Whoever inherited the pipe, such as a shared ssh connection in the background, may hold it for ever.
_GRACE_S = 1.0


class ErrorTail:
    """Given to one process as its standard error. All that it writes is read at once, and forgotten but for the end."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        self._kept = b""
        self._thread = threading.Thread(target=self._drain, daemon=True)

    def __enter__(self) -> ErrorTail:
        self._thread.start()
        return self

    def __exit__(self, *_exception: Any) -> None:
        self._close()

    def fileno(self) -> int:
        """What the process writes to."""
        return self._writing

    def read(self) -> bytes:
        """The end of what was said, once the process has ended. Nothing can be given to a process any more then."""
        self._close()
        self._thread.join(_GRACE_S)
        return self._kept

    def _close(self) -> None:
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1

    def _drain(self) -> None:
        """The thread alone closes what it reads: nobody else can know when it is done with it."""
        try:
            while True:
                data = os.read(self._reading, _CHUNK)
                if not data:
                    return
                self._kept = (self._kept + data)[-_KEPT:]
        finally:
            os.close(self._reading)
