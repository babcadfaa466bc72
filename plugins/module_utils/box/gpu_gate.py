# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The gate before a cell that needs GPUs: its own cards are there, whole, free of leftovers and used by nobody else.

Cards that the run does not use say nothing about it: a neighbour may work on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import gpu, gpu_locks


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
    cards = tuple(gpu_locks.cards(run, reading))
    taken = tuple(gpu_locks.held(cards))
    if taken:
        # Memory that the other one holds is no leftover.
        return Found(cards, taken)
    unfit = tuple(gpu.refusals(run["gpu"], reading, cards))
    if unfit:
        return Found(cards, unfit=unfit)
    own = [card.index for card in reading.gpus if card.uuid in cards]
    return Found(cards, unfit=tuple(gpu.faults(only=own)), lasts=True)


def unfit(run: dict[str, Any]) -> list[str]:
    """Why a cell of the run must not start on this box now; for who asks once."""
    if not run["gpu"]["required"]:
        return []
    found = look(run)
    return [in_use(found.taken)] if found.taken else list(found.unfit)


def in_use(taken: tuple[str, ...]) -> str:
    return f"another run on this machine uses GPU {', '.join(taken)}"
