# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Cutting files into the requests that bring them into an object store. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Sequence

from .object_upload import Range
from .roster import RosterFile

MIB = 1024 * 1024
# A file of no more than this goes in one request; a larger one in parts of it, as long as S3's number of parts lasts.
PART_BYTES = 32 * MIB
MAX_PARTS = 10_000
# One call of the box: enough to hide its cost, few enough that its order stays small.
WAVE_UNITS = 4000
FIRST_WAVE_BYTES = 1024 * MIB
_WAVE_S = 60.0
_SMALLEST_WAVE, _LARGEST_WAVE = 256 * MIB, 16 * 1024 * MIB


@dataclass(frozen=True)
class Unit:
    """What one request carries: a whole file (``number`` 0) or one part of it (from 1)."""

    file: RosterFile
    number: int
    offset: int
    bytes: int

    @property
    def range(self) -> Range:
        return Range(self.file.path, self.offset, self.bytes, self.file.bytes)

    @property
    def is_part(self) -> bool:
        return self.number > 0


def part_bytes_for(size: int, part_bytes: int = PART_BYTES) -> int:
    """How long each part of a file of ``size`` bytes is; 0 when the file goes in one request."""
    if size <= part_bytes:
        return 0
    least = -(-size // MAX_PARTS)
    return max(part_bytes, -(-least // MIB) * MIB)


def units_of(file: RosterFile, part_bytes: int) -> list[Unit]:
    """The requests for one file; ``part_bytes`` of 0 makes one of it."""
    if not part_bytes:
        return [Unit(file, 0, 0, file.bytes)]
    starts = range(0, file.bytes, part_bytes)
    return [
        Unit(file, number, start, min(part_bytes, file.bytes - start)) for number, start in enumerate(starts, start=1)
    ]


def next_wave(units: Sequence[Unit], budget_bytes: int) -> list[Unit]:
    """As many units from the front as one call of the box should carry; at least one while there are any."""
    wave: list[Unit] = []
    total = 0
    for unit in units[:WAVE_UNITS]:
        if wave and total + unit.bytes > budget_bytes:
            break
        wave.append(unit)
        total += unit.bytes
    return wave


def wave_budget(bytes_sent: int, seconds: float) -> int:
    """Bytes of the next wave, so that a call lasts about a minute at the rate seen."""
    if bytes_sent <= 0 or seconds <= 0:
        return FIRST_WAVE_BYTES
    return int(min(_LARGEST_WAVE, max(_SMALLEST_WAVE, bytes_sent / seconds * _WAVE_S)))


def hashes_wanted(unit: Unit, listed: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The hashes that are needed of a part, to sign it and to compare it with what the store ``listed`` of it."""
    if listed is None or listed.get("ChecksumSHA256") or listed.get("Size") != unit.bytes:
        return ("sha256",)
    return ("sha256", "md5")


def is_there(unit: Unit, listed: Mapping[str, Any] | None, hashes: Mapping[str, str], base64_sha256: str) -> bool:
    """Whether the part that the store lists is this very one, by its SHA-256 or, where it has none, by its MD5."""
    if listed is None or listed.get("Size") != unit.bytes:
        return False
    if listed.get("ChecksumSHA256"):
        return bool(listed["ChecksumSHA256"] == base64_sha256)
    return str(listed.get("ETag", "")).strip('"') == hashes.get("md5", "-")


def total_bytes(files: Iterable[RosterFile]) -> int:
    return sum(file.bytes for file in files)
