# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a checkpoint of tenant_checkpoint says of itself: a record in its file, or a file in its folder."""

from __future__ import annotations

import json
import os
from typing import Any

from . import zip_archive
from .records import is_count
from .structure import problem_in

NAME = "manifest.json"
_MOST_BYTES = 64 * 1024 * 1024


def best_step(path: str) -> int | None:
    """The step of the best checkpoint when the one at ``path`` was saved; None when it does not say."""
    step = (about(path) or {}).get("best")
    return step if is_count(step) else None


def about(path: str) -> dict[str, Any] | None:
    """What the checkpoint at ``path`` says of itself; None when it says nothing that can be read."""
    found: list[Any] = []
    problem = ""
    try:
        if os.path.isdir(path):
            with open(os.path.join(path, NAME), "rb") as stream:
                found.append(json.loads(stream.read(_MOST_BYTES).decode("utf-8")))
        else:
            problem = problem_in(path, lambda window: found.append(_in_file(window)))
    except (OSError, ValueError, RecursionError):
        return None
    return found[0] if not problem and isinstance(found[0], dict) else None


def _in_file(window: zip_archive.Window) -> Any:
    for member in zip_archive.read_members(window):
        if member.name.count("/") == 1 and member.name.endswith(f"/{NAME}") and member.stored <= _MOST_BYTES:
            zip_archive.check_members(window, [member])
            return json.loads(window.read(member.start, member.stored).decode("utf-8"))
    return None
