# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The released clients of others that the tests drive, each in an environment of its own (``make setup-dev``)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / ".venv-clients"


def python_of(client: str) -> str:
    """The Python that has it. Without one a test is skipped, and on CI it fails."""
    python = FOLDER / client / "bin/python"
    if not python.exists():
        tell = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        tell(f"NOT RUN: {client} is not installed in {python.parents[1]}; make setup-dev does it")
    return str(python)
