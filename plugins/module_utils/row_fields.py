# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a provider's row says, read warily: every value may be missing, of another type, or a stranger's text."""

from __future__ import annotations

import re
from typing import Any, Mapping

from .rented_box import number

_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?\Z")


def text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def fields(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def rows(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def amount(value: Any) -> float | None:
    """A number, which some answers write as text; None for one that is below 0, or none."""
    found = float(value) if isinstance(value, str) and _NUMBER.match(value) else number(value)
    return found if found is not None and found >= 0 else None


def whole(value: Any) -> int | None:
    found = amount(value)
    return None if found is None else int(found)
