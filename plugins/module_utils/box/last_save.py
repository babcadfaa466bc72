# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How long a trainer has for its last save when the platform ends the machine: no longer than the platform leaves it.

What we order ourselves (a stop by hand, the end of one that stalls) has the whole grace of the run.
"""

from __future__ import annotations

from typing import Any

# What a trainer must leave of a notice, in seconds, for the exit record and the end of the machine itself.
MARGIN_S = 2.0


def told_s(run: dict[str, Any]) -> float:
    """What the trainer may count on, whoever tells it to end."""
    return within_s(run, run["preemption"]["grace_s"])


def within_s(run: dict[str, Any], *left_s: float | None) -> float:
    """The shorter of the run's grace and what is left of the machine's life, less the margin.

    :param left_s: as far as each is known.
    """
    known = [each - MARGIN_S for each in left_s if each is not None]
    return float(max(0.0, min([run["grace_s"], *known])))
