# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The diary: lines of the supervisor and its shims on stderr, which is ``supervisor.log``. It only explains."""

from __future__ import annotations

import contextlib
import os
import sys

from . import records


def say(who: str, text: str) -> None:
    """Write one line. A full disk must not end the work."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{records.utc_now()} {who}[{os.getpid()}] {text}\n")
        sys.stderr.flush()
