# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A checkpointer whose cadence counts steps, where a test says at which step a save is due."""

from __future__ import annotations

from typing import Any

HELD, WRITE = 0.01, 0.1


def count_steps(checkpoints: Any) -> None:
    """Let the clock of the cadence count steps, and each save and write take the same small part of one: the seconds of
    a machine that is busy would otherwise be taken for steps."""
    cadence = checkpoints.cadence
    cadence._clock = lambda: float(checkpoints.step)
    held, waited, written = cadence.held, cadence.waited, cadence.written
    cadence.held = lambda _seconds: held(HELD)
    cadence.waited = lambda _seconds: waited(0.0)
    cadence.written = lambda _seconds: written(WRITE)
