# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The program's sources beside the program, where Python can keep bytecode: what starts then need not compile."""

from __future__ import annotations

import contextlib
import os
import shutil
import zipfile


def unpack(program: str, folder: str) -> bool:
    """Put the members of the zip ``program`` into ``folder``, whole or not at all; whether it did.

    Nothing depends on it: without room for it, or beside a program that others own, every start compiles.
    """
    if os.path.isdir(folder) or not os.path.isfile(program):
        return False
    building = f"{folder}.{os.getpid()}.part"
    try:
        with zipfile.ZipFile(program) as archive:
            archive.extractall(building)
        os.rename(building, folder)
        return True
    except (OSError, zipfile.BadZipFile):
        with contextlib.suppress(OSError):
            shutil.rmtree(building)
        return False
