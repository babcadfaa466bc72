# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""SHA-256 of an open file, as fast as Python can: thousands of small files as well as one of many gigabytes. And what
tells that a file is still the one that was hashed."""

from __future__ import annotations

import hashlib
import os
from typing import Callable, Tuple

# What was read is still in the processor's cache when it is hashed.
_CHUNK = 256 * 1024
# What a file is as long as nobody writes to it or replaces it: device, inode, bytes, mtime_ns.
Identity = Tuple[int, int, int, int]


def identity(facts: os.stat_result) -> Identity:
    return (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)


def hash_open(descriptor: int, size: int, moved: Callable[[], object] | None = None) -> tuple[int, str]:
    """(bytes that were read, their SHA-256). They are not ``size``, which it had, when the file changes meanwhile.

    :param moved: called for each piece of a larger file, for whoever watches whether its disk still answers.
    """
    if size <= _CHUNK:
        # One byte more shows that it grew; asking for a whole chunk would cost more than hashing a small file.
        data = os.read(descriptor, size + 1)
        return len(data), hashlib.sha256(data).hexdigest()
    hasher, count = hashlib.sha256(), 0
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as stream:
        while True:
            got = stream.readinto(buffer)
            if not got:
                return count, hasher.hexdigest()
            hasher.update(view[:got])
            count += got
            if moved is not None:
                moved()
