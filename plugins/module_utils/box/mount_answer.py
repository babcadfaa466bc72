# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Questions to a durable mount: the server behind it may be dead, and whoever then looks at a file waits for ever."""

from __future__ import annotations

from typing import Callable, TypeVar

from .errand import Errand
from .refusal import DISK, Refused

WITHIN_S = 10.0

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
