# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The markets in this process are those that the tests of each market are made with."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

for _folder in ("evidence", "vast", "runpod", "lambda_cloud", "paperspace", "aws_spot", "kubernetes"):
    sys.path.append(str(Path(__file__).parents[1] / _folder))


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from own_credentials import own_credentials

    own_credentials(monkeypatch, tmp_path)
