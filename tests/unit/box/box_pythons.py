# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The interpreters here that a box may have: this one, and the oldest ones that ours has to run on."""

from __future__ import annotations

import glob
import os
import sys


def pythons() -> list[str]:
    pyenv = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    return [sys.executable, *sorted(glob.glob(os.path.join(pyenv, "versions", "3.[89]*", "bin", "python")))]
