# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Whether a trainer of several boxes ended because of another box, by what torchrun and its workers wrote. Pure.

torchrun ends with exit code 1 whatever its workers ended with, so their end is read from its report. An uncaught error
of this box's own that is not about the network is this box's fault, even if its neighbours' noise stands beside it.
"""

from __future__ import annotations

import re

from . import last_words
from .refusal import PREEMPTED

_REPORTED = re.compile(r"Root Cause \(first observed failure\):.*?^\s*exitcode\s*:\s*(-?\d+)", re.MULTILINE | re.DOTALL)
_OF_TORCHRUN = re.compile(r"(?:^|\.)(?:ChildFailedError|SignalException|Rendezvous\w*Error|Dist\w*Error)\b")
_LOST = re.compile(
    r"Connection closed by peer|Connection reset by peer|Connection was likely closed|Broken pipe"
    r"|gloo/transport/\S+.*(?:Read|Write|write|read) error|Timed out waiting \d+ms for (?:recv|send) operation"
    r"|remote process exited or there was a network error|ncclRemoteError|Socket Timeout"
    r"|Watchdog caught collective operation timeout|NCCL (?:timeout|error: unhandled system error)"
)
_ABSENT = re.compile(
    r"RendezvousTimeoutError|client socket has (?:timed out|failed to connect)"
    r"|Timed out after \d+ seconds waiting for clients"
    r"|The connection to the C10d store has failed|RendezvousClosedError"
)


def reported_exit(log_tail: str) -> int | None:
    """The exit code, negative for a signal, of the worker that torchrun saw fail first; None when it reports none."""
    found = _REPORTED.findall(log_tail)
    return int(found[-1]) if found else None


def lost(log_tail: str) -> str:
    """The line that shows that the boxes had met and the others went away; empty when nothing shows it."""
    if reported_exit(log_tail) == PREEMPTED:
        return "its workers stopped as another box was asked to"
    return "" if _own_error(log_tail) else _last_line(_LOST, log_tail)


def absent(log_tail: str) -> str:
    """The line that shows that the boxes did not meet in time; empty when nothing shows it."""
    return "" if _own_error(log_tail) else _last_line(_ABSENT, log_tail)


def _last_line(pattern: re.Pattern[str], text: str) -> str:
    hits = [line.strip() for line in text.splitlines() if pattern.search(line)]
    return hits[-1] if hits else ""


def _own_error(log_tail: str) -> bool:
    """Whether a traceback ends with an error that is neither torchrun's nor about a connection."""
    return any(not _OF_TORCHRUN.search(line.split(":")[0]) and not _LOST.search(line) for line in _uncaught(log_tail))


def _uncaught(log_tail: str) -> list[str]:
    """The last line of each traceback: the first one after its head that is not indented."""
    found, inside = [], False
    for line in log_tail.splitlines():
        text = last_words.PREFIX.sub("", line, count=1)
        if text.startswith(last_words.TRACEBACK):
            inside = True
        elif inside and text and not text[0].isspace() and last_words.ERROR.match(text):
            inside = False
            found.append(text)
    return found
