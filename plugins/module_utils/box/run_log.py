# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a cell wrote on standard output and error: the end of it, or what came after a place in it. Reads only."""

from __future__ import annotations

import codecs
import contextlib
import os
from typing import Any

from .layout import Layout

# Bytes of a log in one answer.
MOST = 256 * 1024
# Bytes of its end that tell why a trainer ended.
END = 64 * 1024


def end(path: str) -> str:
    """The end of a log; a log that cannot be read says nothing."""
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - END))
            return stream.read(END).decode("utf-8", "replace")
    except OSError:
        return ""


def tail(layout: Layout, run_id: str, cell: str, lines: int) -> dict[str, Any]:
    """The last ``lines`` lines of the cell's newest attempt that has a log; ``offset`` is where it ends."""
    for number in reversed(layout.attempt_numbers(run_id, cell)):
        with contextlib.suppress(OSError), open(layout.attempt(run_id, cell, number).log, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(max(0, size - MOST))
            data = stream.read(MOST)
            found = data.decode("utf-8", "replace").splitlines()[-lines:] if lines else []
            return _answer(run_id, cell, number, stream.tell(), lines=found)
    return _answer(run_id, cell, 0, 0, lines=[])


def after(layout: Layout, run_id: str, cell: str, attempt: int, offset: int) -> dict[str, Any]:
    """``text``: what stands after ``offset`` bytes of an attempt's log, at most :data:`MOST` of it.

    Once that is read to its end, the beginning of the next attempt's log. A log that is shorter than ``offset`` was
    rotated, and is read from its beginning.
    """
    text, reached = _read(layout.attempt(run_id, cell, attempt).log, offset) if attempt else ("", offset)
    if not text:
        for number in layout.attempt_numbers(run_id, cell):
            if number > attempt and os.path.exists(layout.attempt(run_id, cell, number).log):
                text, reached = _read(layout.attempt(run_id, cell, number).log, 0)
                return _answer(run_id, cell, number, reached, text=text)
    return _answer(run_id, cell, attempt, reached, text=text)


def _read(path: str, offset: int) -> tuple[str, int]:
    """Whole characters only: the rest of one that is being written comes with the next answer."""
    with contextlib.suppress(OSError), open(path, "rb") as stream:
        begin = offset if offset <= os.fstat(stream.fileno()).st_size else 0
        stream.seek(begin)
        data = stream.read(MOST)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(data)
        return text, begin + len(data) - len(decoder.getstate()[0])
    return "", offset


def _answer(run_id: str, cell: str, attempt: int, offset: int, **found: Any) -> dict[str, Any]:
    return {"run_id": run_id, "cell": cell, "attempt": attempt, "offset": offset, **found}
