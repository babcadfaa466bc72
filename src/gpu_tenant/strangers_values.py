# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The JSON of a stranger as values that can be shown, added up and written down: cleaned once, where it comes in."""

from __future__ import annotations

from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import records

from gpu_tenant.one_line import one_line

# From here on a float no longer tells two whole numbers apart; no count of a box comes near.
TOO_MANY = 2**53
# Of a text that is not fit for a line as it is: as much as a path may be long.
_MOST_TEXT = 4096


def plain_values(told: Any) -> Any:
    """``told`` with texts that steer no terminal and can be encoded, and numbers that can be reckoned with.

    A number that is none of any box is unknown, and so None. RecursionError where it is too deep to be read.
    """
    if isinstance(told, str):
        # A path or a name is compared with others: it stays as it is where nothing is wrong with it.
        return told if told.isprintable() else one_line(told, _MOST_TEXT)
    if isinstance(told, dict):
        return {plain_values(key): plain_values(value) for key, value in told.items()}
    if isinstance(told, list):
        return [plain_values(each) for each in told]
    if isinstance(told, int):
        return told if abs(told) < TOO_MANY else None
    return records.finite(told)


def whole(value: Any) -> int | None:
    """A whole number of a size that a box can mean, or None."""
    number = records.finite(value)
    return None if number is None or abs(number) >= TOO_MANY else int(number)


def seconds(value: Any) -> float | None:
    """A time that can be told in words, or None."""
    number = records.finite(value)
    return None if number is None or abs(number) >= TOO_MANY else number
