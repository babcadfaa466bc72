# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The last words of a trainer: what its output says from the error on that ended it. Pure.

What stands before it was survived: a download that was tried again, a save that went well the second time.
"""

from __future__ import annotations

import re

# What torchrun and its like put before each line of a worker.
PREFIX = re.compile(r"^(?:\[[^\]]*\]:? ?)*")
_RANK = re.compile(r"\[(?:rank|default)?\d+\]:")
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
    all of it. Where the lines of several workers name their rank, also the last traceback of each: one of them is the
    reason of the others. Without the program's own lines in a traceback: what they quote was not said."""
    lines = log_tail.splitlines()
    start, _ended = _beginning(lines)
    return "\n".join(_without_frames(_of_other_ranks(lines, start) + lines[start:]))


def name_an_error(log_tail: str) -> bool:
    """Whether they end in words for an error: a traceback that was cut short names none."""
    return _beginning(log_tail.splitlines())[1]


def _of_other_ranks(lines: list[str], start: int) -> list[str]:
    """The last tracebacks before ``start`` of the ranks that have none after it."""
    ranks: dict[str, list[str]] = {}
    for line in lines[:start]:
        rank = _RANK.match(line)
        if rank is not None:
            ranks.setdefault(rank.group(), []).append(line)
    later = {rank.group() for rank in map(_RANK.match, (line for line in lines[start:] if TRACEBACK in line)) if rank}
    said = []
    for own in (own for rank, own in ranks.items() if rank not in later):
        begun = _last_traceback(_texts(own))[0]
        said += own[begun:] if begun is not None else []
    return said


def _texts(lines: list[str]) -> list[str]:
    return [PREFIX.sub("", line, count=1) for line in lines]


def _beginning(lines: list[str]) -> tuple[int, bool]:
    """The line that the last words begin with, and whether they name an error."""
    texts = _texts(lines)
    start, ended = _last_traceback(texts)
    if start is not None:
        return start, ended
    lone = [number for number, text in enumerate(texts) if _is_lone_error(text)]
    return (lone[-1], True) if lone else (0, False)


def _without_frames(lines: list[str]) -> list[str]:
    found, inside = [], False
    for line in lines:
        text = PREFIX.sub("", line, count=1)
        if text.startswith(TRACEBACK):
            inside = True
        elif not inside or (text and not text[0].isspace()):
            inside = False
            found.append(line)
    return found


def _last_traceback(texts: list[str]) -> tuple[int | None, bool]:
    """Where it begins, None where there is none; and whether its last line is there."""
    start, begun, inside, came_of = None, 0, False, False
    for number, text in enumerate(texts):
        if text.startswith(TRACEBACK):
            begun, inside, came_of = begun if came_of else number, True, False
        elif _CAME_OF.match(text):
            came_of = True
        elif inside and text and not text[0].isspace() and ERROR.match(text):
            inside = False
            start = start if _OF_TORCHRUN.search(text.split(":")[0]) else begun
    return (begun, False) if inside else (start, start is not None)


def _is_lone_error(text: str) -> bool:
    return bool(_LONE_ERROR.match(text)) and not _OF_TORCHRUN.search(text.split(":")[0])
