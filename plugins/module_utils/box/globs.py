# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Globs of a run spec (artifacts, inputs, excludes) as regular expressions over relative paths."""

from __future__ import annotations

import re

from .names import check_relative_path


def regex(pattern: str) -> re.Pattern[str]:
    """``*`` and ``?`` stay within one folder and skip hidden names; a ``**`` part spans any number of folders."""
    check_relative_path(pattern)
    parts = pattern.split("/")
    built = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            built += r".+" if last else r"(?:[^/]+/)*"
            continue
        hidden = "" if part.startswith(".") else r"(?!\.)"
        built += hidden + _part_regex(part) + ("" if last else "/")
    return re.compile(built + r"\Z", re.DOTALL)


def _part_regex(part: str) -> str:
    built, position = "", 0
    while position < len(part):
        letter = part[position]
        end = part.find("]", position + 2) if letter == "[" else -1
        if letter == "*":
            built += "[^/]*"
        elif letter == "?":
            built += "[^/]"
        elif end > 0:
            inner = part[position + 1 : end].replace("\\", "\\\\")
            built += "[" + ("^" + inner[1:] if inner[0] == "!" else inner) + "]"
            position = end
        else:
            built += re.escape(letter)
        position += 1
    return built
