# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What makes an instance one of Lambda's: its type, its region, its file systems, and what they cost. Pure."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Dollars for a GiB and month of a file system; a root disk is in the price of its type.
FILE_SYSTEM = 0.20
# Whom a machine lets in, with sudo.
LOGIN = "ubuntu"
_HEX = frozenset(string.hexdigits.lower())
_LENGTH = 32
# What an id begins with; the market's own number is the rest of it.
INSTANCE, FILE, KEY = "1a4bda00", "f11e5000", "55bc0de0"


@dataclass(frozen=True)
class VmTerms:
    """:param price: dollars an hour, root disk included.
    :param keys: the names of the ssh keys that it lets in.
    :param mounts: the numbers of its file systems, each with where it sees it.
    :param tags: keys and values.
    :param family: of its image.
    """

    name: str
    instance_type: str
    region: str
    gpus: int
    price: float
    keys: tuple[str, ...]
    mounts: tuple[tuple[int, str], ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    hostname: str = ""
    family: str = ""

    @property
    def compute_rate(self) -> float:
        return self.price

    @property
    def resting_gb_month(self) -> float:
        """Its disk costs nothing beside it."""
        return 0.0

    @property
    def running_disk_rate(self) -> float:
        return 0.0

    def mounted(self, folder: Path) -> tuple[tuple[Path, str], ...]:
        """The file systems that outlive the box, and where it sees them; ``folder`` holds the bytes of all."""
        return tuple((folder / str(number), path) for number, path in self.mounts)

    def mapped_ports(self) -> list[str]:
        """None beside ssh's: others are reached through a tunnel."""
        return []


def terms_from_dict(data: Mapping[str, Any] | None) -> VmTerms | None:
    if data is None:
        return None
    pairs = {name: tuple(map(tuple, data[name])) for name in ("mounts", "tags")}
    return VmTerms(**{**data, **pairs, "keys": tuple(data["keys"])})


# --- names ----------------------------------------------------------------------------------------------------------


def id_of(kind: str, number: int) -> str:
    return f"{kind}{number:0{_LENGTH - len(kind)}x}"


def number_of(kind: str, name: object) -> int:
    """The number in :func:`id_of`; 0 for anything else."""
    if not isinstance(name, str) or len(name) != _LENGTH or not name.startswith(kind) or not set(name) <= _HEX:
        return 0
    return int(name[len(kind) :], 16)
