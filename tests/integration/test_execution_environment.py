# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The execution environment by ansible-builder's own reading: its schema, and the build context that it makes."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpu_tenant import job

schema = pytest.importorskip("ansible_builder.ee_schema", reason="ansible-builder, of the dev extra, is not installed")
pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
DEFINITION = ROOT / "extensions/ee/execution-environment.yml"
PACKAGES = {"ssh": "openssh-clients", "ssh-keyscan": "openssh-clients", "rsync": "rsync"}


@pytest.fixture
def definition() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(DEFINITION.read_text())
    return found


def test_it_is_one_by_the_schema_of_ansible_builder(definition: dict[str, Any]) -> None:
    assert definition["version"] == 3
    schema.validate_schema(definition)
    with pytest.raises(Exception, match="imagse"):
        schema.validate_schema({**definition, "imagse": {}})


def test_it_brings_what_the_runner_asks_for(definition: dict[str, Any]) -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for name in ("ansible_core", "ansible_runner"):
        assert definition["dependencies"][name]["package_pip"] in wanted
    system = {line.split()[0] for line in definition["dependencies"]["system"]}
    assert {PACKAGES[program] for program in job.PROGRAMS} <= system


def test_a_build_context_is_made_of_it(tmp_path: Path) -> None:
    words = ["create", "-f", str(DEFINITION), "-c", str(tmp_path / "context"), "--output-filename", "Containerfile"]
    done = subprocess.run(
        [sys.executable, "-m", "ansible_builder", *words], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "context/Containerfile").read_text()
    assert "gpu-tenant --version" in text
    assert "gpu-tenant[postgresql]" in (tmp_path / "context/_build/requirements.txt").read_text()
