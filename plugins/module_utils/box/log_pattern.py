# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A trainer's progress by a pattern that the user gives over its log.

The pattern is the user's and the lines are the trainer's, so neither may cost more than a little: lines are cut, a look
reads a bounded piece of the end, and matching is interrupted when its processor time is used up.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
from typing import Any, Iterator, NamedTuple

GROUPS = ("step", "total", "epoch", "loss")
LONGEST_PATTERN = 500
LONGEST_LINE = 1000
MOST_READ = 256 * 1024
# Processor time, not time on the wall: a busy trainer must not make a good pattern look slow.
MATCHING_S = 0.05
_LINE_ENDS = re.compile(rb"[\r\n]+")
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+\Z")


class BadPattern(ValueError):
    """The pattern cannot be used; the text says why."""


class TooSlow(Exception):
    """The pattern used up its time."""


class Found(NamedTuple):
    """The last value of each group; None when no line had it."""

    step: int | None = None
    total: int | None = None
    epoch: float | None = None
    loss: float | None = None


class Look(NamedTuple):
    """``found`` has the last value of each group, ``lines`` what each line that matched had, in their order."""

    found: Found
    offset: int
    problem: str = ""
    lines: tuple[Found, ...] = ()


def compiled(pattern: object) -> re.Pattern[str]:
    """:raises BadPattern: it is none, or names other groups than these, or tells neither step nor epoch."""
    if not isinstance(pattern, str) or not pattern:
        raise BadPattern("a regular expression as text is needed")
    if len(pattern) > LONGEST_PATTERN:
        raise BadPattern(f"it has {len(pattern)} characters, {LONGEST_PATTERN} are allowed")
    try:
        found = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise BadPattern(f"it is no regular expression ({error})") from error
    unknown = sorted(set(found.groupindex) - set(GROUPS))
    if unknown:
        raise BadPattern(f"it names the groups {', '.join(unknown)}; known are {', '.join(GROUPS)}")
    if not {"step", "epoch"} & set(found.groupindex):
        raise BadPattern("it has neither a group (?P<step>…) nor (?P<epoch>…)")
    return found


def look(path: str, offset: int, pattern: re.Pattern[str], whole: bool = False) -> Look:
    """What the lines since ``offset`` say. The last line waits until it ends, unless ``whole``.

    :raises OSError: the log cannot be read.
    """
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        # A log that was rotated starts anew.
        begin = offset if offset <= size else 0
        behind = size - begin > MOST_READ
        begin = size - MOST_READ if behind else begin
        stream.seek(begin)
        data = stream.read(MOST_READ)
    if behind:
        data, begin = _after_first_end(data, begin)
    lines, used = _lines(data, whole)
    found, problem = Found(), ""
    matched: list[Found] = []
    try:
        with limited(MATCHING_S):
            for line in lines:
                match = pattern.search(line)
                if match is not None:
                    found = _merged(found, match)
                    matched.append(_merged(Found(), match))
    except TooSlow:
        problem = f"the pattern needs more than {MATCHING_S:g} s for these lines; what it did not reach was passed over"
    return Look(found, begin + used, problem, tuple(matched))


def _after_first_end(data: bytes, begin: int) -> tuple[bytes, int]:
    end = _LINE_ENDS.search(data)
    cut = end.end() if end else len(data)
    return data[cut:], begin + cut


def _lines(data: bytes, whole: bool) -> tuple[list[str], int]:
    """Lines, cut to a length, and how many bytes they took. Progress bars end theirs with a carriage return."""
    pieces = _LINE_ENDS.split(data)
    rest = pieces[-1]
    if not whole and len(rest) <= LONGEST_LINE:
        pieces.pop()
        used = len(data) - len(rest)
    else:
        used = len(data)
    return [piece[:LONGEST_LINE].decode("utf-8", "replace") for piece in pieces if piece], used


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise :class:`TooSlow` inside once ``seconds`` of processor time are used. Python's ``re`` looks for signals
    while it matches, so this ends even what would backtrack for years. Only on the main thread."""

    def over(_number: int, _frame: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGVTALRM, over)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _merged(known: Found, match: re.Match[str]) -> Found:
    texts = match.groupdict()
    fresh: dict[str, Any] = {
        "step": _whole(texts.get("step")),
        "total": _whole(texts.get("total")),
        "epoch": _number(texts.get("epoch")),
        "loss": _number(texts.get("loss")),
    }
    return known._replace(**{name: value for name, value in fresh.items() if value is not None})


def _whole(text: str | None) -> int | None:
    number = _number(text.replace(",", "") if text and _THOUSANDS.match(text) else text)
    return int(number) if number is not None and 0 <= number < 2**53 else None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
