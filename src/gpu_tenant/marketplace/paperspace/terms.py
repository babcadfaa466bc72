# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What makes an instance a machine of Paperspace's: its type, its disk, its address, and what they cost. Pure.

Prices are of the order of 2026-11. A disk bills in every state, and so does a static address.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Dollars: a GB and month of disk, of a snapshot, a shared drive or a template; an hour of a static address.
DISK = 0.10
STORED = 0.29
STATIC_IP = 0.0045
_MONTH_H = 720.0
_DIGITS = string.digits + string.ascii_lowercase
_LENGTH = 10
# What an id begins with; the market's own number is the rest of it.
MACHINE, SNAPSHOT, DRIVE, TEMPLATE, SCRIPT, EVENT = "ps", "ss", "sd", "tm", "sc", "ev"


@dataclass(frozen=True)
class CoreTerms:
    """:param price: dollars an hour of compute.
    :param ip_type: static, dynamic or none.
    :param script: number of its startup script, 0 for none.
    :param keys: those that the script let in, which outlive it.
    :param shutdown_h: hours after a start at which it is shut down, 0 for never.
    :param events: what was done to it, and when.
    """

    name: str
    machine_type: str
    region: str
    gpus: int
    price: float
    disk_gb: int
    template: str
    ip_type: str = "dynamic"
    network: str = ""
    script: int = 0
    shutdown_h: float = 0.0
    shutdown_force: bool = False
    events: tuple[tuple[str, float], ...] = ()
    keys: tuple[str, ...] = ()

    @property
    def compute_rate(self) -> float:
        return self.price

    @property
    def resting_gb_month(self) -> float:
        return DISK

    @property
    def running_disk_rate(self) -> float:
        """Dollars an hour for its disk, whether it runs or not."""
        return self.disk_gb * DISK / _MONTH_H

    def mapped_ports(self) -> list[str]:
        """None beside ssh's: a machine has an address of its own."""
        return []


def terms_from_dict(data: Mapping[str, Any] | None) -> CoreTerms | None:
    if data is None:
        return None
    keys = tuple(data.get("keys", ()))
    return CoreTerms(**{**data, "keys": keys, "events": tuple((name, at) for name, at in data["events"])})


# --- names ----------------------------------------------------------------------------------------------------------


def id_of(kind: str, number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return f"{kind}{text:0>{_LENGTH}}"


def number_of(kind: str, name: object) -> int:
    """The number in :func:`id_of`; 0 for anything else."""
    if not isinstance(name, str) or not name.startswith(kind) or len(name) != len(kind) + _LENGTH:
        return 0
    digits = name[len(kind) :]
    return int(digits, 36) if set(digits) <= set(_DIGITS) else 0


def is_machine_row(body: object) -> bool:
    return isinstance(body, Mapping) and isinstance(body.get("id"), str) and "autoShutdownEnabled" in body
