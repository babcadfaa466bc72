# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How far the transfers of a running playbook are: JSON lines that its tasks append to a file, read as they come.

The lines are a courtesy. One that is torn, foreign or absurd is left out, and nothing is ever decided by them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.box.wording import duration, size

# Where checked_sync looks for the name of the file.
VARIABLE = "TENANT_PROGRESS_FILE"
# A line longer than this is none of ours; a read is bounded so that a flood costs one chunk at a time.
_LONGEST_LINE = 64 * 1024
_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class Transfer:
    """One report. ``rate_bps`` (bytes a second) and ``eta_s`` are None while unknown."""

    box: str
    files_done: int
    files: int
    bytes_done: int
    bytes: int
    rate_bps: float | None = None
    eta_s: float | None = None

    def as_data(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "box" and value is not None}

    @property
    def text(self) -> str:
        """``12 of 40 files, 1.2 GB of 3.4 GB at 56.0 MB/s, 40 s left``; only what is known."""
        told = [f"{self.files_done} of {self.files} files", f"{size(self.bytes_done)} of {size(self.bytes)}"]
        if self.rate_bps is not None:
            told[-1] += f" at {size(self.rate_bps)}/s"
        if self.eta_s is not None:
            told.append(f"{duration(self.eta_s)} left")
        return ", ".join(told)


class Reports:
    """Reads what was appended to ``path`` since the last look. Several writers append whole lines to one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._begun = b""

    def new(self) -> Iterator[Transfer]:
        """The reports since the last call, oldest first; a line that is not whole yet waits for its end."""
        while chunk := self._read():
            *lines, self._begun = (self._begun + chunk).split(b"\n")
            if len(self._begun) > _LONGEST_LINE:
                self._begun = b""
            for line in lines:
                report = parse(line)
                if report is not None:
                    yield report

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as stream:
                stream.seek(self._offset)
                chunk = stream.read(_CHUNK)
        except OSError:
            # No transfer has begun yet.
            return b""
        self._offset += len(chunk)
        return chunk


def parse(line: bytes) -> Transfer | None:
    """The report in a line; None for anything else."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    counts = [_count(found.get(name)) for name in ("files_done", "files", "bytes_done", "bytes")]
    if None in counts:
        return None
    files_done, files, bytes_done, total = (count or 0 for count in counts)
    box = found.get("box")
    rate, eta = _number(found.get("rate_bps")), _number(found.get("eta_s"))
    return Transfer(box if isinstance(box, str) else "", files_done, files, bytes_done, total, rate, eta)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _number(value: object) -> float | None:
    number = records.finite(value)
    return number if number is not None and number >= 0 else None
