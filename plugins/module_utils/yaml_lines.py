# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""On which line of a YAML file each of its keys stands, so that a complaint about one can say where to look."""

from __future__ import annotations

import errno
import os
import re
import stat
from typing import Any

# A sweep of ten thousand cells is a third of it.
MOST_BYTES = 4 * 1024 * 1024
# Values that are there once more for each alias of what holds them; a long text counts for several. Twenty lines of
# aliases make more than fits anywhere.
MOST_REPEATED = 100_000
_LONG_TEXT = 100
_STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


class Lines:
    """``document`` is what the text says; ``line`` where it says so, from 1."""

    def __init__(self, text: str) -> None:
        """yaml.YAMLError when it is not YAML, or more than anybody wrote."""
        # Only the controller has it, and this file is read with those that a box has too.
        import yaml

        root = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_unfolding(root)
        self.document = yaml.safe_load(text)
        self._lines = dict(_lines_of(root, ()))

    def line(self, where: tuple[Any, ...]) -> int:
        """The line of a key, or of the nearest thing around one that is missing."""
        return next((self._lines[where[:n]] for n in range(len(where), -1, -1) if where[:n] in self._lines), 1)

    def line_of(self, key: str) -> int:
        """The line of a dotted key, such as ``platform_verbs.park[0].keeps``."""
        steps = (int(index) if index else name for index, name in _STEP.findall(key))
        return self.line(tuple(steps))


def text_of(path: str) -> str:
    """What a file that a person wrote says. OSError for what is none: a device or a pipe may have no end."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", path)
    with open(path, "rb") as stream:
        data = stream.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise OSError(errno.EFBIG, f"it is longer than {MOST_BYTES // 1024 // 1024} MiB", path)
    return data.decode("utf-8")


def _refuse_unfolding(root: Any) -> None:
    """An anchor that holds itself, or aliases of aliases, are short here and without end wherever they are walked."""
    import yaml

    seen: set[int] = set()
    repeated, left = 0, [root] if root is not None else []
    while left:
        node = left.pop()
        if id(node) in seen:
            repeated += 1 + (len(node.value) // _LONG_TEXT if node.id == "scalar" else 0)
        if repeated > MOST_REPEATED:
            problem = f"its aliases repeat more than {MOST_REPEATED} values, or hold themselves"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        seen.add(id(node))
        if node.id == "mapping":
            left += [each for pair in node.value for each in pair]
        elif node.id == "sequence":
            left += node.value


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
