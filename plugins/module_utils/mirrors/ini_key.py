# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One key of an ini file, read and set in place: comments, order and all other keys stay as they are. Pure."""

from __future__ import annotations

import re

_SECTION = re.compile(r"\s*\[([^\]]*)\]")


def get(text: str, section: str, key: str) -> str | None:
    """The value; None where the key is not there."""
    lines = text.splitlines(keepends=True)
    place = _place(lines, section, key)
    if place is None:
        return None
    return re.split("[=:]", "".join(lines[place[0] : place[1]]), maxsplit=1)[1].strip()


def put(text: str, section: str, key: str, value: str | None) -> str:
    """``text`` with the key at ``value``; without it where that is None, and without a section left empty."""
    lines = text.splitlines(keepends=True)
    wanted = [] if value is None else [f"{key} = {value}\n"]
    place = _place(lines, section, key)
    if place is not None:
        lines[place[0] : place[1]] = wanted
        return "".join(lines if wanted else _without_empty(lines, section))
    if not wanted:
        return text
    head = _head(lines, section)
    if head is None:
        ended = not text or text.endswith("\n")
        return f"{text}{'' if ended else chr(10)}[{section}]\n{wanted[0]}"
    # At the end of the section: after its head, a line that begins with a blank would go on with ours.
    last = max(number for number in range(head, _end(lines, head)) if lines[number].strip())
    if not lines[last].endswith("\n"):
        lines[last] += "\n"
    lines[last + 1 : last + 1] = wanted
    return "".join(lines)


def _head(lines: list[str], section: str) -> int | None:
    for number, line in enumerate(lines):
        found = _SECTION.match(line)
        if found and found.group(1).strip() == section:
            return number
    return None


def _end(lines: list[str], head: int) -> int:
    following = (number for number in range(head + 1, len(lines)) if _SECTION.match(lines[number]))
    return next(following, len(lines))


def _place(lines: list[str], section: str, key: str) -> tuple[int, int] | None:
    """The lines of the key, with those that continue its value."""
    head = _head(lines, section)
    if head is None:
        return None
    # pip reads index_url as index-url.
    spelled = re.compile(key.replace("-", "[-_]") + r"\s*[=:]", re.IGNORECASE)
    end = _end(lines, head)
    for number in range(head + 1, end):
        if spelled.match(lines[number]):
            after = number + 1
            while after < end and lines[after][:1] in " \t" and lines[after].strip():
                after += 1
            return number, after
    return None


def _without_empty(lines: list[str], section: str) -> list[str]:
    head = _head(lines, section)
    if head is None:
        return lines
    end = _end(lines, head)
    return lines if any(line.strip() for line in lines[head + 1 : end]) else lines[:head] + lines[end:]
