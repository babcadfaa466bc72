# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import load_run_spec
from export_places import SPEC


@pytest.fixture(scope="session")
def spec_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    (folder / "code").mkdir()
    (folder / "code/train.py").write_text("print('trained')\n")
    path = folder / "run.yml"
    path.write_text(SPEC)
    return path


@pytest.fixture(scope="session")
def spec(spec_file: Path) -> dict[str, Any]:
    return load_run_spec(str(spec_file))


@pytest.fixture(scope="session")
def one_cell(spec: dict[str, Any]) -> dict[str, Any]:
    """A run that every target takes: one cell, no secrets."""
    return {**spec, "cells": spec["cells"][:1], "secrets": []}


@pytest.fixture
def run_bash(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a script with programs of the test before those of the machine."""
    programs = tmp_path / "bin"
    programs.mkdir()

    def run(
        script: str, stubs: Mapping[str, str], env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        for name, body in stubs.items():
            (programs / name).write_text(body)
            (programs / name).chmod(0o755)
        whole = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path), **(env or {})}
        return subprocess.run(
            ["bash"], input=script, env=whole, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
        )

    return run
