# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""When the first try of a drill is worth a kill: in mid-epoch, once it has told losses that the second will tell too.

It is looked at again and again, with the time, and keeps what it saw. Less than that will do after a while, which is
longer for slow steps, and at last anything: a trainer may save at its every step, or tell no epoch's middle.
"""

from __future__ import annotations

from typing import Any

from . import drill_start
from .drill_verdict import steps_of
from .step_name import training_step_in

# Losses after the checkpoint that are worth waiting for, and the least time for that.
OVERLAP = 3
PATIENCE_S = 10.0


class Moment:
    """``saw`` is told what there is at each look; ``has_come`` says whether that is worth a kill."""

    def __init__(self) -> None:
        self._now = 0.0
        self._lines: list[dict[str, Any]] = []
        self._ready_at: float | None = None
        self._first_told: tuple[float, int] | None = None
        self._newest: tuple[Any, ...] = ()
        self._saved: int | None = None
        # Between these two it was saved, where its name does not say when.
        self._saved_from: int | None = None
        self._saved_until: int | None = None
        # How many steps were told at each save: a long one is seen to change again and again, and is one.
        self._saved_after: set[int] = set()

    def saw(self, now: float, lines: list[dict[str, Any]], newest: dict[str, Any] | None) -> bool:
        """Whether there are steps and a checkpoint at all.

        :param newest: the newest of ``artifacts.checkpoint_units``.
        """
        before, made = steps_of(self._lines), steps_of(lines)
        self._now, self._lines = now, lines
        if made and self._first_told is None:
            self._first_told = now, len(made)
        if newest is not None and (newest["key"], newest["mtime"]) != self._newest:
            self._newest = newest["key"], newest["mtime"]
            self._saved = training_step_in(newest["key"])
            self._saved_from, self._saved_until = (told[-1][0] if told else None for told in (before, made))
            self._saved_after.add(len(made))
        if made and newest is not None and self._ready_at is None:
            self._ready_at = now
        return self._ready_at is not None and bool(made) and newest is not None

    @property
    def first_told_at(self) -> float:
        return self._now if self._first_told is None else self._first_told[0]

    def has_come(self, left_s: float) -> bool:
        """:param left_s: until the deadline, of which the second try needs its part."""
        waited_s = self._now - (self._now if self._ready_at is None else self._ready_at)
        patience_s = min(max(PATIENCE_S, (OVERLAP + 1) * self._step_s()), left_s / 2)
        if waited_s >= 2 * patience_s:
            return True
        # Slow steps, and saved at each: no later moment shows more, and a short run would end meanwhile.
        saved_at_each = patience_s > PATIENCE_S and len(self._saved_after) >= OVERLAP
        if waited_s >= patience_s or saved_at_each:
            return self._later() >= 1
        return self._later() >= OVERLAP and self._is_far_from_start() and in_mid_epoch(self._lines) is not False

    def _step_s(self) -> float:
        """Seconds from one told step to the next, as they were seen to come; no less than the next is waited for."""
        if self._first_told is None:
            return 0.0
        begun, count = self._first_told
        return (self._now - begun) / max(1, len(steps_of(self._lines)) - count)

    def _later(self) -> int:
        """How many losses were told after the newest checkpoint: where its name has no step, since it was seen."""
        saved = self._saved_until if self._saved is None else self._saved
        return sum(loss is not None and (saved is None or step > saved) for step, loss in steps_of(self._lines))

    def _is_far_from_start(self) -> bool:
        """Whether the step after the checkpoint could not be that of a start as well."""
        made = [step for step, _loss in steps_of(self._lines)]
        saved = self._saved_from if self._saved is None else self._saved
        return saved is not None and saved >= drill_start.start_ends(made, named=self._saved is not None)


def in_mid_epoch(lines: list[dict[str, Any]]) -> bool | None:
    """Whether the last step was not an epoch's first or last; None when the lines do not say."""
    epochs = [line.get("epoch") for line in lines if "step" in line][-2:]
    if len(epochs) < 2 or None in epochs:
        return None
    return bool(epochs[0] == epochs[1])
