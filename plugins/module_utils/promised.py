# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the done record of a cell promises, and whether it is at home: read from the copy, a stranger's word."""

from __future__ import annotations

from typing import Any, Mapping

from . import roster
from .bounded_json import read_json

DONE = "done.json"
# A log is no result: people who leave the logs on a box have its results all the same.
_NO_RESULT = ("log",)
_MOST_BYTES = 64 * 1024 * 1024
# As many of ours as these bytes can hold, with five or six things said of each artifact. As many of a stranger's are a
# few hundred megabytes for seconds.
_MOST_VALUES = 3_000_000


def read(path: str) -> dict[str, Any] | None:
    """A done record at home; None where it cannot be read, or has more in it than one of ours."""
    try:
        with open(path, "rb") as stream:
            record = read_json(stream.read(_MOST_BYTES).decode("utf-8"), _MOST_VALUES)
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def lines(done: Mapping[str, Any] | None) -> list[dict[str, Any]] | None:
    """What a done record promises; None where it cannot be trusted."""
    listed = done.get("artifacts") if done is not None else None
    wanted = ("path", "bytes", "sha256")
    if not isinstance(listed, list) or not all(isinstance(line, dict) for line in listed):
        return None
    return listed if all(key in line for line in listed for key in wanted) else None


def is_listed(files: Mapping[str, roster.RosterFile], line: Mapping[str, Any]) -> bool:
    """Whether a roster, by path, has a promised file as it was when the cell finished."""
    file = files.get(line["path"]) if isinstance(line["path"], str) else None
    return file is not None and (file.bytes, file.sha256) == (line["bytes"], line["sha256"])


def is_result(line: Mapping[str, Any]) -> bool:
    """Whether a cell is finished at home only with this of what its done record promises."""
    return line.get("role") not in _NO_RESULT
