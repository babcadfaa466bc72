# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The gate before a cell that needs GPUs: its own cards are there, whole, free of leftovers and used by nobody else.

Cards that the run does not use say nothing about it: a neighbour may work on them.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Callable

from . import gpu, gpu_locks, judge
from .errand import Errand

# Between two looks at cards that are in use or not fit.
LOOK_S = 5.0
# How long cards must be found unfit before that is believed, and how often a driver must be silent.
UNFIT_S = 60.0
SILENT_LOOKS = 2
# How long a cell waits for its turn on cards that another root's trainer uses.
TAKEN_S = 12 * 3600.0


@dataclass(frozen=True)
class Found:
    """What one look found: ``cards`` that the run uses, those of them that another root's trainer uses, and why they
    are not fit. ``silent``: the driver gave no answer. ``lasts``: no later look would find otherwise."""

    cards: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()
    unfit: tuple[str, ...] = ()
    silent: bool = False
    lasts: bool = False


def look(run: dict[str, Any]) -> Found:
    """One look at the cards of a run that needs GPUs. It takes as long as the driver does."""
    reading = gpu.read()
    if reading.problem:
        unfit = tuple(gpu.refusals(run["gpu"], reading))
        return Found(unfit=unfit, silent=reading.silent, lasts=reading.problem == gpu.NOT_INSTALLED)
    misnamed = tuple(gpu_locks.misnamed(run, reading))
    if misnamed:
        return Found(unfit=misnamed)
    cards = tuple(gpu_locks.cards(run, reading))
    taken = tuple(gpu_locks.held(cards))
    if taken:
        # Memory that the other one holds is no leftover.
        return Found(cards, taken)
    unfit = tuple(gpu.refusals(run["gpu"], reading, cards))
    if unfit:
        return Found(cards, unfit=unfit)
    own = [card.index for card in reading.gpus if card.uuid in cards]
    try:
        return Found(cards, unfit=tuple(gpu.faults(only=own)), lasts=True)
    except gpu.Unanswered as error:
        return Found(cards, unfit=(f"{gpu.NOT_ASKED}: {error}",), silent=error.silent)


def unfit(run: dict[str, Any]) -> list[str]:
    """Why a cell of the run must not start on this box now; for who asks once."""
    if not run["gpu"]["required"]:
        return []
    found = look(run)
    return [in_use(found.taken)] if found.taken else list(found.unfit)


def in_use(taken: tuple[str, ...]) -> str:
    return f"another run on this machine uses GPU {', '.join(taken)}"


class Gate:
    """The looks before the cells of one supervisor, off its loop: a driver that hangs must not hold the box.

    What a look finds is used once, however long it took. Cards that are not fit are looked at again for a while: a
    driver gives memory back some time after the process that held it has ended, and it may be slow for once.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._step: judge.Step | None = None
        self._errand: Errand[Found] | None = None
        self._again_at = -math.inf
        self._unfit_since: float | None = None
        self._taken_since: float | None = None
        self._silent = 0
        #: Of the cell that may start.
        self.cards: tuple[str, ...] = ()
        #: Why the cell does not start yet, in words.
        self.waits_for = ""

    def ask(self, step: judge.Step, run: dict[str, Any]) -> list[str] | None:
        """Why the GPUs forbid the cell; empty when they do not, None while time may tell."""
        if step != self._step:
            self._begin(step)
        if not run["gpu"]["required"]:
            return []
        if self._errand is None and self._clock() >= self._again_at:
            self._errand = Errand("gpu gate", lambda: look(run), wake=True)
        if self._errand is None or not self._errand.is_back:
            return None
        errand, self._errand = self._errand, None
        return self._judge(errand.answer or Found(unfit=(f"the GPUs cannot be looked at: {errand.problem}",)))

    def _begin(self, step: judge.Step | None) -> None:
        self._step, self._errand, self._again_at = step, None, -math.inf
        self._unfit_since, self._taken_since, self._silent = None, None, 0
        self.cards, self.waits_for = (), ""

    def _judge(self, found: Found) -> list[str] | None:
        if found.taken:
            return self._wait_for_others(in_use(found.taken))
        self._taken_since = None
        if found.unfit and not self._is_believed(found):
            self._wait("; ".join(found.unfit))
            return None
        self._begin(None)
        self.cards = found.cards
        return list(found.unfit)

    def _wait_for_others(self, who: str) -> list[str] | None:
        """The box costs money meanwhile, so the wait for a turn has an end."""
        now = self._clock()
        self._unfit_since, self._silent = None, 0
        self._taken_since = now if self._taken_since is None else self._taken_since
        if now - self._taken_since < TAKEN_S:
            self._wait(who)
            return None
        self._begin(None)
        return [f"{who}, and has for {TAKEN_S / 3600:.0f} h"]

    def _is_believed(self, found: Found) -> bool:
        now = self._clock()
        self._silent += found.silent
        self._unfit_since = now if self._unfit_since is None else self._unfit_since
        # A look at a driver that hangs takes long by itself, so these are counted.
        return found.lasts or self._silent >= SILENT_LOOKS or now - self._unfit_since >= UNFIT_S

    def _wait(self, what_for: str) -> None:
        self._again_at, self.waits_for = self._clock() + LOOK_S, what_for
