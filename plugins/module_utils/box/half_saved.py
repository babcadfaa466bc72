# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Checkpoints that a killed trainer had half written. Each attempt has a folder of its own, so the next one would never
meet them, and every kill would keep the room of a checkpoint."""

from __future__ import annotations

import contextlib
import os
import re
import shutil

# As tenant_checkpoint names what is not whole yet: whatever else ends so may be somebody's.
_HALF = re.compile(r"\.(step-\d{10}\.(pt|dcp|ckpt)|checkpoint-\d+|attempts\.json|brought)\.tmp\Z")


def remove(folder: str) -> int:
    """Remove what nobody writes any more from a checkpoint folder; how many. Only for attempts that are dead."""
    removed = 0
    with contextlib.suppress(OSError):
        for name in filter(_HALF.match, os.listdir(folder)):
            path = os.path.join(folder, name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)
            removed += 1
    return removed
