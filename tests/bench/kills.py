# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``kill -9`` of the runner at 200 instants of a full lifecycle on recorded effectors, stratified by phase.

What a life is, what an instant is and what is counted is in tests/chaos/lifecycle.py. ``KILLS`` takes another number,
``KILLS_SEED`` another choice.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

from harness import Figure

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "chaos"))

import lifecycle

TITLE = "kill -9 of the runner at instants of a full lifecycle"
LANES = 4
_FIGURES = ("orphans", "double_rentals", "lost_results", "reruns")


def rows() -> list[Figure]:
    number, seed = int(os.environ.get("KILLS", "200")), int(os.environ.get("KILLS_SEED", "7"))
    with tempfile.TemporaryDirectory() as folder, lifecycle.markets(Path(folder), LANES) as markets:
        counts = lifecycle.instants(Path(folder) / "undisturbed", markets[0])
        chosen = lifecycle.drawn(counts, number, seed)
        verdicts = lifecycle.killed_at_each(Path(folder), markets, chosen)
    for verdict in verdicts:
        if not verdict.is_clean:
            print(verdict, flush=True)
    killed = [verdict for verdict in verdicts if verdict.was_killed]
    figures = [Figure("instants of an undisturbed run", sum(counts.values()), "")]
    figures += [
        Figure(f"killed in phase {phase}", count, f"of {counts[phase]} instants")
        for phase, count in sorted(Counter(verdict.at.phase for verdict in killed).items())
    ]
    figures += [
        Figure(f"{name.replace('_', ' ')} after a restart", sum(abs(getattr(each, name)) for each in killed), "", 0)
        for name in _FIGURES
    ]
    ended = sum(not verdict.trouble for verdict in killed)
    return [
        *figures,
        Figure("runs that the next start did not bring to their end", len(killed) - ended, "", 0),
        Figure("instants that were not reached", len(verdicts) - len(killed), ""),
    ]
