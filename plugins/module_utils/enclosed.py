# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Small trees that travel with the question whether they are wanted: one visit of the box where a transfer takes three.

What arrives so is staged, compared and moved to its place like all that arrives otherwise.
"""

from __future__ import annotations

import base64
import os
import zlib
from typing import Any, Mapping, Sequence

from .box.names import inside
from .destination import room_problem
from .roster import RosterFile
from .settling import settle, staging

MOST_BYTES = 256 * 1024
MOST_FILES = 100


def contents(root: str, files: Sequence[RosterFile]) -> dict[str, str]:
    """Path to content, deflated and in base64, of all ``files``; none where that would be more than a question."""
    if len(files) > MOST_FILES or sum(file.bytes for file in files) > MOST_BYTES:
        return {}
    found = {}
    try:
        for file in files:
            with open(os.path.join(root, file.path), "rb") as stream:
                # What grew meanwhile is noticed by its hash.
                found[file.path] = base64.b64encode(zlib.compress(stream.read(MOST_BYTES), 9)).decode("ascii")
    except OSError:
        # Gone since it was hashed: whoever carries it in the other way says so.
        return {}
    return found


def land(
    root: str, wanted: Sequence[RosterFile], contents: Mapping[str, str], room: Mapping[str, Any], reserve_bytes: int
) -> list[str]:
    """Put those of ``wanted`` whose content came with the question in their place, if there is room for all of them;
    the paths of those that were right. The staging folder is open."""
    if not all(file.path in contents for file in wanted) or room_problem(wanted, room, reserve_bytes, in_place=True):
        return []
    for file in wanted:
        path = inside(staging(root), file.path)
        # Perhaps the beginning of a larger one that an earlier transfer left.
        if os.path.lexists(path):
            os.unlink(path)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as stream:
            stream.write(zlib.decompress(base64.b64decode(contents[file.path])))
    return settle(root, wanted)[0]
