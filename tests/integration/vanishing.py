# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Files that other processes replace and remove, and processes that end, between a look at the list and one at them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def read(path: Path) -> bytes:
    """What a file or a process says; nothing, where it has gone since it was listed."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return path.read_bytes()
    return b""


def files_below(folder: Path) -> Iterator[Path]:
    """Every plain file; a folder that goes meanwhile is passed over."""
    for place, _folders, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if path.is_file() and not path.is_symlink():
                yield path
