# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a cell wrote on standard output and error: the end of it, or what came after a place in it. Reads only."""

from __future__ import annotations

import codecs
import contextlib
import os
from typing import IO, Any

from .layout import Layout

# Bytes of a log in one answer.
MOST = 256 * 1024
# Bytes of its end that tell why a trainer ended.
END = 64 * 1024


def earlier(path: str) -> str:
    """Where what a log held before it was rotated lies."""
    return f"{path}.1"


def end(path: str) -> str:
    """The end of a log, as far as it can be read; on into what it held before, as it may just have been rotated."""
    data = end_of_file(path, END)
    return (end_of_file(earlier(path), END - len(data)) + data).decode("utf-8", "replace")


def end_of_file(path: str, most: int) -> bytes:
    """Its last ``most`` bytes; none of one that cannot be read."""
    with contextlib.suppress(OSError), open(path, "rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - most))
        return stream.read(most)
    return b""


def tail(layout: Layout, run_id: str, cell: str, lines: int) -> dict[str, Any]:
    """The last ``lines`` lines of the cell's newest attempt that has a log; ``offset`` is where it ends."""
    for number in reversed(layout.attempt_numbers(run_id, cell)):
        with contextlib.suppress(OSError), open(layout.attempt(run_id, cell, number).log, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(max(0, size - MOST))
            data = stream.read(MOST)
            before = end_of_file(earlier(stream.name), MOST - len(data)) if data.count(b"\n") <= lines else b""
            found = (before + data).decode("utf-8", "replace").splitlines()[-lines:] if lines else []
            return _answer(run_id, cell, number, stream.tell(), lines=found)
    return _answer(run_id, cell, 0, 0, lines=[])


def after(layout: Layout, run_id: str, cell: str, attempt: int, offset: int) -> dict[str, Any]:
    """``text``: what stands after ``offset`` bytes of an attempt's log, at most :data:`MOST` of it.

    Once that is read to its end, the beginning of the next attempt's log. A log that is shorter than ``offset`` was
    rotated: what it held before is read to its end, then it from its beginning.
    """
    text, reached = _read(layout.attempt(run_id, cell, attempt).log, offset) if attempt else ("", offset)
    if not text:
        for number in layout.attempt_numbers(run_id, cell):
            if number > attempt and os.path.exists(layout.attempt(run_id, cell, number).log):
                text, reached = _read(layout.attempt(run_id, cell, number).log, 0)
                return _answer(run_id, cell, number, reached, text=text)
    return _answer(run_id, cell, attempt, reached, text=text)


def _read(path: str, offset: int) -> tuple[str, int]:
    with contextlib.suppress(OSError), open(path, "rb") as stream:
        if offset <= os.fstat(stream.fileno()).st_size:
            return _read_on(stream, offset)
        with contextlib.suppress(OSError), open(earlier(path), "rb") as before:
            text, reached = _read_on(before, offset)
            if text:
                return text, reached
        return _read_on(stream, 0)
    return "", offset


def _read_on(stream: IO[bytes], offset: int) -> tuple[str, int]:
    """Whole characters only: the rest of one that is being written comes with the next answer."""
    stream.seek(offset)
    data = stream.read(MOST)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data)
    return text, offset + len(data) - len(decoder.getstate()[0])


def _answer(run_id: str, cell: str, attempt: int, offset: int, **found: Any) -> dict[str, Any]:
    return {"run_id": run_id, "cell": cell, "attempt": attempt, "offset": offset, **found}
