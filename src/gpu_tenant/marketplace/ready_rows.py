# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Rows that were put into words once: an answer holds dozens of rows of a hundred columns, and hardly one changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class StillRow(dict[str, Any]):
    """The columns of a row that do not move with the clock; not to be changed."""

    __slots__ = ("_text",)

    def __init__(self, row: Mapping[str, Any], moving: frozenset[str]) -> None:
        super().__init__((name, value) for name, value in row.items() if name not in moving)
        self._text: str | None = None

    @property
    def text(self) -> str:
        if self._text is None:
            self._text = json.dumps(self)
        return self._text


class ReadyRow(dict[str, Any]):
    """A whole row that knows its own words; not to be changed, a copy is a plain row.

    :param moving: its columns that move with the clock, as they are now.
    """

    __slots__ = ("_moving", "_still")

    def __init__(self, still: StillRow, moving: Mapping[str, Any]) -> None:
        super().__init__(still)
        self.update(moving)
        self._still = still
        self._moving = moving

    @property
    def text(self) -> str:
        return f"{self._still.text[:-1]}, {json.dumps(self._moving)[1:]}"


def json_text(value: Any) -> str:
    """What ``json.dumps`` makes of an answer; the rows in it bring their own words."""
    if isinstance(value, ReadyRow):
        return value.text
    if isinstance(value, list) and value and isinstance(value[0], ReadyRow):
        return f"[{', '.join(map(json_text, value))}]"
    if isinstance(value, dict) and any(isinstance(part, (list, ReadyRow)) for part in value.values()):
        parts = (f"{json.dumps(name)}: {json_text(part)}" for name, part in value.items())
        return f"{{{', '.join(parts)}}}"
    return json.dumps(value)
