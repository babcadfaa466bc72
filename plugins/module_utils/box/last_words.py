# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The last words of a trainer: what its output says from the error on that ended it. Pure.

What stands before it was survived: a download that was tried again, a save that went well the second time.
"""

from __future__ import annotations

import re

# What torchrun and its like put before each line of a worker.
PREFIX = re.compile(r"^(?:\[[^\]]*\]:? ?)*")
TRACEBACK = "Traceback (most recent call last):"
# The last line of a traceback.
ERROR = re.compile(r"^(?:[A-Za-z_][\w.]*\.)?[A-Za-z_]\w*(?:Error|Exception|Exit|Interrupt|Warning)?\b(?::|$)")
# Without a traceback only a name that says so counts, and a number behind it makes it a metric.
_LONE_ERROR = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception)(?:$|:(?! *[-+0-9.e]+ *$))")
_CAME_OF = re.compile(r"(?:During handling of the above|The above) exception\b")
# torchrun's own, which follows that of its worker and says nothing of the reason.
_OF_TORCHRUN = re.compile(r"(?:^|\.)(?:ChildFailedError|SignalException)\b")


def of(log_tail: str) -> str:
    """From the last traceback on, with those that it came of; else from the last line in the form of an error; else
    all of it."""
    lines = log_tail.splitlines()
    texts = [PREFIX.sub("", line, count=1) for line in lines]
    start = _last_traceback(texts)
    if start is None:
        start = max((number for number, text in enumerate(texts) if _is_lone_error(text)), default=0)
    return "\n".join(lines[start:])


def _last_traceback(texts: list[str]) -> int | None:
    start, begun, inside, came_of = None, 0, False, False
    for number, text in enumerate(texts):
        if text.startswith(TRACEBACK):
            begun, inside, came_of = begun if came_of else number, True, False
        elif _CAME_OF.match(text):
            came_of = True
        elif inside and text and not text[0].isspace() and ERROR.match(text):
            inside = False
            start = start if _OF_TORCHRUN.search(text.split(":")[0]) else begun
    return begun if inside else start


def _is_lone_error(text: str) -> bool:
    return bool(_LONE_ERROR.match(text)) and not _OF_TORCHRUN.search(text.split(":")[0])
