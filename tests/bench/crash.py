# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Trainings killed with SIGKILL at the file events of their saves, and started again with the same command.

What an event is, who is killed and what is judged is in tests/chaos/checkpoint_matrix.py. ``CRASH_STRIDE`` takes so
many times fewer events of each way, ``CRASH_WAYS`` (names as that program takes them) only some of the ways.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

MATRIX = Path(__file__).resolve().parent.parent / "chaos" / "checkpoint_matrix.py"
TITLE = "Checkpoint crash matrix, every way of saving"
# Name of the way, its name to the program, and which of its events are taken: every n-th.
WAYS = (
    ("ours, one process", "whole", 1),
    ("ours, DDP with 2 ranks", "replicated:2", 7),
    ("ours, sharded over 2 ranks", "sharded:2", 37),
    ("ours, sharded over 4 ranks", "sharded:4", 173),
    ("plain `torch.save` to one file", "torch.save", 1),
    ("HF Trainer alone", "trainer", 5),
    ("HF Trainer with our callback", "trainer+callback", 5),
)
STRIDE = int(os.environ.get("CRASH_STRIDE", "1"))
CHOSEN = os.environ.get("CRASH_WAYS", "").split()
# Then the lines of the other ways stay on the page.
PART = bool(CHOSEN)


@dataclass(frozen=True)
class Way:
    """``found`` is what the matrix says of one way. Ours has a bar: all resumable, no more lost than an interval."""

    HEAD: ClassVar = (
        "| way | kills | resumable | most steps lost / of an interval | lost more than it | silently diverged | bar |\n"
        "|---|---|---|---|---|---|---|\n"
    )

    name: str
    found: dict[str, Any]
    ours: bool

    @property
    def met(self) -> bool:
        whole = self.found["kills"] > 0 and self.found["resumable"] == self.found["kills"]
        return not self.ours or (whole and not self.found["lost_more"] and not self.found["diverged"])

    def markdown(self) -> str:
        wanted = "all, 0, 0" if self.ours else "-"
        told = [self.found[key] for key in ("kills", "resumable")]
        told += [f"{self.found['lost']} / {self.found['interval']:g}", self.found["lost_more"], self.found["diverged"]]
        cells = [self.name, *map(str, told), wanted if self.met else f"{wanted} (**not met**)"]
        return f"| {' | '.join(cells)} |"


def rows() -> list[Way]:
    found = []
    for name, way, stride in WAYS:
        if (CHOSEN and way not in CHOSEN) or _is_missing(way):
            continue
        every = stride * STRIDE
        said = f"{name}, {'every event' if every == 1 else f'1 of {every} events'}"
        command = [sys.executable, str(MATRIX), way, "--stride", str(every)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        row = Way(said, json.loads(done.stdout), name.startswith("ours") or way == "trainer+callback")
        print(row.markdown(), row.found["whys"], flush=True)
        found.append(row)
    return found


def _is_missing(way: str) -> bool:
    return way.startswith("trainer") and importlib.util.find_spec("transformers") is None


def details() -> str:
    missing = [name for name, way, _stride in WAYS if _is_missing(way)]
    absent = f" NOT RUN, for want of transformers: {', '.join(missing)}." if missing else ""
    return (
        "A preloaded library kills the process at libc's file events and in the middle of writes; of ranks each in\n"
        "turn, and the others after it. *Resumable*: it ends when started again, and goes on from the save before the\n"
        "last at worst. *Lost*: steps done again, of an interval that is the cadence's for ours (its clock counts\n"
        f"steps here, and a save that is under way counts in) and two steps for the others.{absent}\n"
    )
