# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Questions to a durable mount: the server behind it may be dead, and whoever then looks at a file waits for ever."""

from __future__ import annotations

from typing import Callable, TypeVar

from .errand import Errand
from .refusal import DISK, DURABLE_FAILED, Refused

WITHIN_S = 10.0
# Of a copy, which may take hours on a slow mount as long as it moves. Twice that passes at most before it is given up.
STALL_S = 120.0

T = TypeVar("T")


def asked(path: str, question: Callable[[], T], within_s: float | None = None) -> T:
    """What ``question`` gives or raises, if the mount at ``path`` answers in time; the thread that asks is left behind.

    :raises Refused: DISK, when it does not answer.
    """
    most_s = WITHIN_S if within_s is None else within_s
    errand = Errand("durable mount", question)
    if not errand.wait(most_s):
        fix = "look at the server of the mount; mount it again, then start again"
        raise Refused(DISK, f"the durable mount {path} gives no answer within {most_s:g} s", fix)
    return errand.result()


class Abandoned(Exception):
    """Nobody waits for the answer any more."""


class Movement:
    """How far a long answer has come; whoever works on it says so at each piece."""

    def __init__(self) -> None:
        self.count = 0
        self._abandoned = False

    def moved(self) -> None:
        """:raises Abandoned: the mount came back too late; what is done now would only be in the way."""
        if self._abandoned:
            raise Abandoned
        self.count += 1

    def abandon(self) -> None:
        self._abandoned = True


def moving(path: str, what: str, answer: Callable[[Movement], T], stall_s: float | None = None) -> T:
    """What ``answer`` gives or raises, however long it takes, as long as it moves; else its thread is left behind.

    :param what: names the work in the refusal.
    :raises Refused: DURABLE_FAILED, when nothing has moved for ``stall_s``.
    """
    most_s = STALL_S if stall_s is None else stall_s
    movement, seen = Movement(), -1
    errand = Errand("durable mount", lambda: answer(movement))
    while not errand.wait(most_s):
        if movement.count == seen:
            movement.abandon()
            told = f"{what} stands still: the durable mount {path} has taken and given nothing for {most_s:g} s"
            raise Refused(DURABLE_FAILED, told, "look at the server of the mount, then start: nothing is trained twice")
        seen = movement.count
    return errand.result()
