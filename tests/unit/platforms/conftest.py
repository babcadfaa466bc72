# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The markets in this process are those that the tests of each market are made with."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

for _folder in ("evidence", "vast", "runpod", "lambda_cloud", "paperspace", "aws_spot"):
    sys.path.append(str(Path(__file__).parents[1] / _folder))


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of this test only: nothing is read from the developer's own files, and no metadata service is asked."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTTESTTESTTEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-the-controller")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-credentials"))
