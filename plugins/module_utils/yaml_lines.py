# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""On which line of a YAML file each of its keys stands, so that a complaint about one can say where to look."""

from __future__ import annotations

import re
from typing import Any

_STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


class Lines:
    """``document`` is what the text says; ``line`` where it says so, from 1."""

    def __init__(self, text: str) -> None:
        """yaml.YAMLError when it is not YAML."""
        # Only the controller has it, and this file is read with those that a box has too.
        import yaml

        self.document = yaml.safe_load(text)
        self._lines = dict(_lines_of(yaml.compose(text, Loader=yaml.SafeLoader), ()))

    def line(self, where: tuple[Any, ...]) -> int:
        """The line of a key, or of the nearest thing around one that is missing."""
        return next((self._lines[where[:n]] for n in range(len(where), -1, -1) if where[:n] in self._lines), 1)

    def line_of(self, key: str) -> int:
        """The line of a dotted key, such as ``platform_verbs.park[0].keeps``."""
        steps = (int(index) if index else name for index, name in _STEP.findall(key))
        return self.line(tuple(steps))


def _lines_of(node: Any, where: tuple[Any, ...]) -> list[tuple[tuple[Any, ...], int]]:
    if node is None:
        return []
    found = [(where, node.start_mark.line + 1)]
    if node.id == "mapping":
        for key, value in node.value:
            found += _lines_of(value, (*where, key.value))
            found.append(((*where, key.value), key.start_mark.line + 1))
    elif node.id == "sequence":
        for index, item in enumerate(node.value):
            found += _lines_of(item, (*where, index))
    return found
