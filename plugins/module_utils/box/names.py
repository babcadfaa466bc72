# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Names that become paths, labels and arguments: checked once, at the door."""

from __future__ import annotations

import os
import re

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
_UNSAFE_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]")


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
    """``path`` if it stays inside the folder it is joined to; else :class:`UnsafeName`.

    Refused: empty, absolute, ``..`` or ``.`` parts, backslashes, control characters, a part that begins with ``-``.
    """
    if not isinstance(path, str) or not path or path.startswith("/") or "\\" in path or _UNSAFE_CHARACTERS.search(path):
        raise UnsafeName(f"unsafe path {path!r}")
    for part in path.split("/"):
        if part in ("", ".", "..") or part.startswith("-") or len(part.encode("utf-8", "replace")) > 255:
            raise UnsafeName(f"unsafe path {path!r}")
    return path


def inside(root: str, path: str) -> str:
    """The absolute path of ``root/path``; :class:`UnsafeName` if symlinks lead it out of ``root``."""
    check_relative_path(path)
    real_root = os.path.realpath(root)
    joined = os.path.join(real_root, path)
    real = os.path.realpath(joined)
    if real != real_root and not real.startswith(real_root.rstrip("/") + "/"):
        raise UnsafeName(f"{path!r} leads out of {root}")
    return joined
