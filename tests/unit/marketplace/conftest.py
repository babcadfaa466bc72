# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from copy_world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    (tmp_path / "bucket").mkdir()
    made = World(tmp_path / "market", connections=(("backups", tmp_path / "bucket"),))
    yield made
    made.close()
