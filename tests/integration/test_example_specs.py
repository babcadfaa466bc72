# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The run specs of the examples: what they declare is what their scripts write, whole and sound."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import artifacts
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import load_run_spec

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*/run*.yml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_what_an_example_declares_is_what_it_writes(path: Path, tmp_path: Path) -> None:
    spec = load_run_spec(str(path))
    words = [*_without(_command(spec), "--epochs"), "--epochs", "1", *spec["cells"][0]["args"]]
    places = {"TENANT_OUTPUT_DIR": str(tmp_path), "TENANT_CHECKPOINT_DIR": str(tmp_path / "checkpoints")}
    environment = {**os.environ, **spec["env"], **places, "PYTHONPATH": str(ROOT / "roles" / "deploy" / "files")}
    done = subprocess.run(
        words, cwd=spec["code_dir"], env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found, skipped = artifacts.collect(str(tmp_path), spec["artifacts"])
    assert skipped == []
    written = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert written - {line["path"] for line in found} == {"checkpoints/attempts.json"}
    assert any(line["role"] == "checkpoint" and line["path"].startswith("checkpoints/") for line in found)


def _command(spec: dict[str, Any]) -> list[str]:
    """The command with this interpreter and two processes; for a run of several boxes, as ``train`` would start it."""
    words = [sys.executable if word == "python" else word for word in spec["command"]]
    if spec["nodes"]:
        return [words[0], "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *words[1:]]
    return ["2" if before == "--nproc-per-node" else word for before, word in zip(["", *words], words, strict=False)]


def _without(words: list[str], option: str) -> list[str]:
    """``words`` without an option and its value."""
    if option not in words:
        return words
    place = words.index(option)
    return words[:place] + words[place + 2 :]
