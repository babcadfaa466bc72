# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A stranger's words for a person's terminal: letters, tabs and line ends, and nothing that a terminal would obey.

A box that may write an escape sequence there writes over what else the command says, renames windows, and on some
terminals types. A character that turns the direction of a line makes one name read as another.
"""

from __future__ import annotations

import re
from typing import Any

# Escape sequences of colours and of the cursor as a whole; of all others what makes them one. Beyond the control
# characters (tab and line end stay) those of direction, and half characters, which are printed as any byte.
_OBEYED = re.compile("\x1b\\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def readable(text: str) -> str:
    """``text`` with line ends of one kind, and without what a terminal would obey."""
    if _OBEYED.search(text) is None:
        return text
    return _OBEYED.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def readable_parts(value: Any) -> Any:
    """``value``, of mappings and lists, with each text in it :func:`readable`. RecursionError where it is too deep."""
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, dict):
        return {readable_parts(key): readable_parts(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [readable_parts(each) for each in value]
    return value
