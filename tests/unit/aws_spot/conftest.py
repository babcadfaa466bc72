# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
from __future__ import annotations

from pathlib import Path

import pytest
from own_credentials import own_credentials
from small_cloud import SmallCloud


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own_credentials(monkeypatch, tmp_path)


@pytest.fixture
def cloud(tmp_path: Path) -> SmallCloud:
    return SmallCloud(tmp_path)
