# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Blocks and inodes kept back for the records that decide: a trainer that fills the disk must still be stopped, and
its end recorded."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Callable, Sequence, TypeVar

BYTES = 32 * 1024

T = TypeVar("T")


def is_full(error: OSError) -> bool:
    """Whether a write failed for want of space."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def keep(paths: Sequence[str]) -> None:
    """Make those files of the reserve that are not there. :raises OSError: there is no room for them."""
    for path in paths:
        if os.path.exists(path):
            continue
        try:
            with open(path, "wb") as stream:
                # Not zeros: a file system that packs them would keep nothing back.
                stream.write(os.urandom(BYTES))
        except OSError:
            # A part of it would pass for the whole the next time.
            free([path])
            raise


def free(paths: Sequence[str]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)


def spend(paths: Sequence[str], write: Callable[[], T]) -> T:
    """What ``write`` gives; on a full disk it is repeated, with one file of the reserve given up each time.

    :raises OSError: the disk is full, and the reserve is gone too.
    """
    for path in paths:
        try:
            return write()
        except OSError as error:
            if not is_full(error):
                raise
            free([path])
    return write()
