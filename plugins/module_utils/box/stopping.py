# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Stopping attempts: ask, wait for the grace, then insist. Works with or without a living shim."""

from __future__ import annotations

import signal
import time

from . import attempt, process, records, reserve
from .layout import AttemptPaths
from .refusal import DEADLINE, Refused

# After SIGKILL: time for the kernel to end the processes and for the shim to write its record.
SETTLE_S = 20.0
_PAUSE_S = 0.1


def ask(paths: AttemptPaths, grace_s: float, why: str, failure: str = "") -> None:
    """Tell the attempt to stop. The shim forwards it; without a shim the trainer's group is told directly.

    :param failure: the failure class that its end is, where nobody asked for it.
    """
    order = {"grace_s": grace_s, "why": why, "failure": failure, "asked_at": records.utc_now()}
    try:
        records.write_record(paths.stop, "stop", order)
    except OSError as error:
        if not reserve.is_full(error):
            raise
        # The signal matters more than its reason: a shim without the record gives the grace of the run.
    if process.send(attempt.shim_of(paths), signal.SIGTERM):
        return
    if not process.send_group(attempt.trainer_of(paths), signal.SIGTERM):
        process.kill_all(attempt.members(paths), signal.SIGTERM)


def stop_all(attempts: list[AttemptPaths], grace_s: float, why: str) -> None:
    """Stop attempts and wait until they have ended; Refused(DEADLINE) names those that would not."""
    for paths in attempts:
        ask(paths, grace_s, why)
    # The shim needs a moment of its own after the grace.
    if _ended_within(attempts, grace_s + 2.0):
        return
    for paths in attempts:
        process.kill_all(attempt.members(paths))
        shim = attempt.shim_of(paths)
        if process.is_elsewhere(shim):
            process.send(shim, signal.SIGKILL)
    if not _ended_within(attempts, SETTLE_S):
        alive = [paths.folder for paths in attempts if attempt.is_alive(paths)]
        raise Refused(DEADLINE, f"still alive after SIGKILL: {', '.join(alive)}", "look at the box: is a disk hanging?")


def _ended_within(attempts: list[AttemptPaths], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while any(attempt.is_alive(paths) for paths in attempts):
        if time.monotonic() >= until:
            return False
        time.sleep(_PAUSE_S)
    return True
