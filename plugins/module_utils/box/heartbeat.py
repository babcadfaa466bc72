# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The heartbeat of an attempt: how far it is and how fast, looked at by the supervisor and kept in ``progress.json``.

Times are of the monotonic clock, which all processes of one life of the box share and nobody sets; a record of another
life keeps its step and loses its pace.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from typing import Any, Callable

from . import attempt, gates, process, progress, records, run_record
from .layout import AttemptPaths, Layout
from .pace import Pace
from .progress import eta_s
from .progress_source import METRICS, Reached, open_source

LOOK_S = 10.0
# Until a first step was seen: whoever starts a run waits for it.
FIRST_LOOK_S = 3.0


class Heartbeat:
    """Follows one attempt. :meth:`beat` is called at every tick and looks when it is time.

    :raises RecordError: the run record cannot be trusted.
    """

    def __init__(
        self, layout: Layout, run_id: str, cell: str, number: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._layout, self._run_id, self._cell, self._number = layout, run_id, cell, number
        self._paths = layout.attempt(run_id, cell, number)
        self._clock = clock
        self._look_at = -math.inf
        self._written: object = None
        self._of_run: object = None
        self._take_up(attempt.read(self._paths.progress, "progress"))

    def _take_up(self, kept: dict[str, Any]) -> None:
        """Begin, or go on from what was kept: by an earlier supervisor, or before the run record changed."""
        run = run_record.read_run(self._layout, self._run_id)
        self._wanted = run["progress"]
        same = kept.get("progress") == self._wanted
        self._source = open_source(self._paths, self._wanted, kept if same else {}, self._clock)
        self._keys = attempt.work(run, run_record.cell_of(run, self._cell), self._number)
        this_life = same and kept.get("boot") == process.current_boot().as_dict()
        self._pace = Pace(_pairs(kept.get("seen")) if this_life else ())
        self._of_run = _stamp(self._layout.run_record(self._run_id))

    def beat(self, last: bool = False) -> None:
        """Look, and write what changed. ``last``: the trainer has ended. Never raises for a full disk."""
        now = self._clock()
        if not last and now < self._look_at:
            return
        if _stamp(self._layout.run_record(self._run_id)) != self._of_run:
            # A pattern that is corrected while the trainer runs serves at once.
            with contextlib.suppress(records.RecordError):
                self._take_up(self._record(now))
        self._source.look(last)
        self._look_at = now + (FIRST_LOOK_S if self._source.reached.step is None else LOOK_S)
        if self._source.reached.step is not None:
            self._pace.note(self._source.reached.step, now)
        news = (self._source.reached, self._source.problem, self._wanted)
        if news != self._written and gates.has_room_to_tell(gates.disk_of(self._paths.folder)):
            self._written = news
            with contextlib.suppress(OSError):
                records.write_record(self._paths.progress, "progress", self._record(now))

    @property
    def reached(self) -> Reached:
        return self._source.reached

    @property
    def problem(self) -> str:
        return self._source.problem

    def _record(self, now: float) -> dict[str, Any]:
        reached, rate = self._source.reached, self._pace.rate(now)
        return {
            **self._keys,
            "source": self._wanted["source"],
            "progress": self._wanted,
            "step": reached.step,
            "steps": reached.steps,
            "epoch": reached.epoch,
            "loss": reached.loss,
            "rate": None if rate is None else round(rate, 6),
            "eta_s": eta_s(reached.step, reached.steps, rate),
            "problem": self._source.problem,
            "at": records.utc_now(),
            "boot": process.current_boot().as_dict(),
            "seen": self._pace.as_list(),
            **self._source.kept(),
        }


def last_word(layout: Layout, run_id: str, cell: str, number: int) -> Reached:
    """Where an ended trainer's source leaves it, read to its end now. Empty of a source that is or was damaged or too
    slow to read: one that was done must not look as if it had left early."""
    try:
        kept = attempt.read(layout.attempt(run_id, cell, number).progress, "progress")
        heart = Heartbeat(layout, run_id, cell, number)
        heart.beat(last=True)
        return Reached() if kept.get("problem") or heart.problem else heart.reached
    except Exception:
        # As the supervisor's own looks: what a trainer wrote there, whatever it is, must not end who reads it.
        return Reached()


def reached(paths: AttemptPaths, wanted: dict[str, Any], running_s: float | None) -> dict[str, Any]:
    """How far the attempt is, now. The metrics file is read again for it; the other sources as last looked at.

    :param wanted: ``progress`` of the run record.
    :param running_s: the age of a trainer that lives, else None.
    """
    record = attempt.read(paths.progress, "progress")
    ours = record.get("progress") == wanted and record.get("boot") == process.current_boot().as_dict()
    pace = Pace(_pairs(record.get("seen"))).rate(time.monotonic()) if ours else None
    rate = None if pace is None else round(pace, 6)
    lines = progress.read_progress(paths.metrics, running_s, rate)
    if wanted["source"] == METRICS:
        steps = lines.steps or wanted["total_steps"]
        found: dict[str, Any] = {"step": lines.step, "steps": steps, "epoch": lines.epoch, "loss": lines.loss}
        rate = lines.rate
    else:
        found = {key: record.get(key) for key in ("step", "steps", "epoch", "loss")}
    return {
        **found,
        "rate": rate,
        "eta_s": eta_s(found["step"], found["steps"], rate) if running_s is not None else None,
        "resumed_from_step": lines.resumed_from_step,
        "progress_source": wanted["source"],
        "progress_problem": str(record.get("problem") or ""),
    }


def signs_of_life(paths: AttemptPaths) -> list[str]:
    """Files that the trainer writes besides log, metrics and checkpoints: the event files it is followed by."""
    offsets = attempt.read(paths.progress, "progress").get("offsets")
    names = offsets if isinstance(offsets, dict) else {}
    return [os.path.join(paths.folder, str(name)) for name in names]


def _stamp(path: str) -> object:
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_ino, info.st_mtime_ns


def _pairs(value: object) -> list[tuple[float, int]]:
    """The (time, step) pairs in a record; what is none of them is left out."""
    found = []
    for each in value if isinstance(value, list) else []:
        if isinstance(each, list) and len(each) == 2 and all(isinstance(number, (int, float)) for number in each):
            found.append((float(each[0]), int(each[1])))
    return found
