# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Names that become paths, labels and arguments: checked once, at the door."""

from __future__ import annotations

import os
import re

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
# What most paths look like: nothing that is refused below can be in them, which is seen at one look.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.=-]*)*\Z")
# Control characters forge lines in logs, bidirectional ones make a name read as another.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_DECEPTIVE = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
MAX_NAME_BYTES = 255
# Room is left below PATH_MAX for the folder that a path is joined to, and for the folders of a transfer in it.
MAX_PATH_BYTES = 1024
MAX_DEPTH = 64
_SHOWN = 120


class UnsafeName(ValueError):
    """A name or path that must not be used."""


def check_name(kind: str, value: object) -> str:
    """``value`` if it may name a project, box, run or cell; else :class:`UnsafeName`.

    Letters, digits, dot, underscore and hyphen; starts with a letter or digit; at most 63 characters; no ``..``.
    """
    if not isinstance(value, str) or not _NAME.match(value) or ".." in value:
        raise UnsafeName(
            f"{kind} {value!r} is not a usable name: start with a letter or digit, then letters, digits, '.', '_' "
            "or '-', at most 63 characters, no '..'"
        )
    return value


def check_relative_path(path: object) -> str:
    """``path`` if it stays inside the folder it is joined to and means the same everywhere; else :class:`UnsafeName`.

    Refused: empty, absolute, ``..`` or ``.`` parts, backslashes, control and bidirectional characters, what is not
    UTF-8, a part that begins with ``-``, and what is too long or too deep for some filesystem.
    """
    if not isinstance(path, str):
        raise UnsafeName(f"the path {_shown(ascii(path))} is not text")
    problem = _path_problem(path)
    if problem:
        raise UnsafeName(f"the path {_shown(ascii(path))} {problem}")
    return path


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


def _path_problem(path: str) -> str:
    if len(path) <= MAX_NAME_BYTES and path.count("/") < MAX_DEPTH and _PLAIN_PATH.match(path):
        return ""
    if not path:
        return "is empty"
    if path.startswith("/"):
        return "is absolute"
    if "\\" in path:
        return "has a backslash, which parts folders on some systems"
    if _CONTROL.search(path):
        return "has a control character"
    if _DECEPTIVE.search(path):
        return "has a character that changes how a name reads"
    try:
        encoded = path.encode("utf-8")
    except UnicodeEncodeError:
        return "is not UTF-8"
    parts = path.split("/")
    if len(encoded) > MAX_PATH_BYTES or len(parts) > MAX_DEPTH:
        return f"is too long or too deep: at most {MAX_PATH_BYTES} bytes and {MAX_DEPTH} levels"
    return next((problem for problem in map(_part_problem, parts) if problem), "")


def _part_problem(part: str) -> str:
    if part in ("", "."):
        return "has an empty part"
    if part == "..":
        return "leads out of its folder by '..'"
    if part.startswith("-"):
        return "has a part that begins with '-', which a program would take for an option"
    if len(part.encode("utf-8")) > MAX_NAME_BYTES:
        return f"has a name of more than {MAX_NAME_BYTES} bytes"
    return ""


def printable(text: str) -> str:
    """``text`` fit for a record and a terminal, whatever a stranger wrote into it or named a file."""
    return text if text.isprintable() and text.isascii() else ascii(text)[1:-1]


def is_temporary(path: str) -> bool:
    """Names that savers use until a file is whole."""
    return path.endswith((".tmp", ".part", ".incomplete"))


def inside(root: str, path: str) -> str:
    """The absolute path of ``root/path``; :class:`UnsafeName` if symlinks lead it out of ``root``."""
    check_relative_path(path)
    real_root = os.path.realpath(root)
    joined = os.path.join(real_root, path)
    real = os.path.realpath(joined)
    if real != real_root and not real.startswith(real_root.rstrip("/") + "/"):
        raise UnsafeName(f"{path!r} leads out of {root}")
    return joined
