# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Durations and sizes in words, the same on the box and on the controller."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """``28 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(max(seconds, 0.0))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(count: float) -> str:
    """``512 B``, ``3.4 MB``: decimal units, as disks and networks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
