# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How the queue of a run stands: a word for its end, and counts that always add up to the roster. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping

from . import judge

OK, FAILED, ABORTED = "QUEUE_OK", "QUEUE_FAILED", "QUEUE_ABORTED"


@dataclass(frozen=True)
class Queue:
    """``end`` is empty while the queue may go on by itself. ``done``, ``failed`` and ``waiting`` name every cell once.

    QUEUE_OK: every cell is done. QUEUE_FAILED: the others failed, and no cell waits. QUEUE_ABORTED: cells wait, and
    nobody works on them (a stop, a hold, a gate, a failed cell where
    the run asks to stop then).
    """

    end: str
    done: tuple[str, ...]
    failed: tuple[str, ...]
    waiting: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {"end": self.end, "done": list(self.done), "failed": list(self.failed), "waiting": list(self.waiting)}

    def words(self) -> str:
        """One line for a log."""
        total = len(self.done) + len(self.failed) + len(self.waiting)
        counted = f"{len(self.done)} of {total} done, {len(self.failed)} failed, {len(self.waiting)} waiting"
        failed = f"; failed: {', '.join(self.failed)}" if self.failed else ""
        waiting = f"; waiting: {', '.join(self.waiting)}" if self.waiting else ""
        return f"{self.end} {counted}{failed}{waiting}"


def of(verdicts: Mapping[str, judge.Verdict], supervised: bool, halted: bool = False) -> Queue:
    """:param verdicts: of every cell of the run's roster, in its order.

    :param supervised: whether a supervisor lives, which may go on with what waits. :param halted: it will not.
    """
    done = tuple(cell for cell, verdict in verdicts.items() if verdict.state == judge.DONE)
    failed = tuple(cell for cell, verdict in verdicts.items() if verdict.state == judge.FAILED)
    waiting = tuple(cell for cell in verdicts if cell not in (*done, *failed))
    lives = any(verdict.next == judge.WATCH for verdict in verdicts.values())
    if waiting:
        return Queue("" if (supervised and not halted) or lives else ABORTED, done, failed, waiting)
    return Queue(FAILED if failed else OK, done, failed, waiting)
