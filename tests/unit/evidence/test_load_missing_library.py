# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""verify_load where the Python that runs it lacks what a file needs: it says so, and does no less than it can."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ansible_collections.tenant.gpu.plugins.module_utils import load_checks, load_formats, load_task

COLLECTIONS = Path(__file__).resolve().parents[3] / "collections"
NAME = "step-0000000004.pt"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    torch.save({"step": 4, "w": torch.ones(64)}, tmp_path / NAME)
    return tmp_path


def verify(root: Path, **changes: Any) -> dict[str, Any]:
    files = [{"path": NAME, "loader": "torch"}]
    wishes = {"globals": [], "finite": None}
    params = {"root": str(root), "files": files, "manifest": None, "level": "load", "expect": wishes}
    found: dict[str, Any] = load_task.verify({**params, "missing_library": "structure", **changes}, check_mode=False)
    return found


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(load_formats, "_is_there", lambda name: name not in names)


def test_with_torch_the_file_is_loaded(root: Path) -> None:
    found = verify(root)
    assert found["why_not_loaded"] == ""
    assert [(check["level"], check["ok"], check["tensors"]) for check in found["checks"]] == [("load", True, 1)]


def test_without_torch_its_structure_is_checked_and_the_reason_said(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "torch")
    found = verify(root)
    assert found["why_not_loaded"] == f"{sys.executable} has no torch"
    assert [(check["level"], check["ok"]) for check in found["checks"]] == [("structure", True)]
    data = bytearray((root / NAME).read_bytes())
    data[data.index(b"\x00\x00\x80\x3f") + 2] ^= 1
    (root / NAME).write_bytes(data)
    with pytest.raises(load_checks.LoadFailure):
        verify(root)


@pytest.mark.parametrize(
    ("version", "old"), [("2.0.1+cu118", True), ("1.13.1", True), ("2.1.0", False), ("odd", False)]
)
def test_a_torch_that_cannot_leave_tensors_in_the_file_is_told_by_its_version(
    root: Path, monkeypatch: pytest.MonkeyPatch, version: str, old: bool
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: version)
    said = verify(root)["why_not_loaded"]
    assert (f"torch {version}" in said and "older than 2.1" in said) is old


@pytest.mark.parametrize("changes", [{"missing_library": "fail"}, {"level": "expect"}])
def test_nobody_is_content_with_less_unasked(
    root: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    without(monkeypatch, "torch")
    found = verify(root, **changes)
    assert found["why_not_loaded"] == ""
    assert found["checks"][0]["level"] != "structure"


@pytest.mark.parametrize(
    ("path", "loader", "absent", "said"),
    [
        ("a.pt", "torch", ["torch"], "no torch"),
        ("__0_0.distcp", "dcp", ["torch"], "no torch"),
        ("a.npz", "npz", ["numpy"], "no numpy"),
        ("a.safetensors", "safetensors", ["safetensors"], "no safetensors"),
        ("a.safetensors", "safetensors", ["torch", "numpy"], "no numpy"),
        ("a.safetensors", "safetensors", ["torch"], ""),
        ("model.safetensors", "hf", ["safetensors"], "no safetensors"),
        ("config.json", "hf", ["torch", "safetensors", "numpy"], ""),
        ("a.bin", "none", ["torch"], ""),
    ],
)
def test_what_is_needed_follows_from_the_files(
    monkeypatch: pytest.MonkeyPatch, path: str, loader: str, absent: list[str], said: str
) -> None:
    without(monkeypatch, *absent)
    found = load_formats.missing_library([(path, loader)])
    assert bool(found) is bool(said)
    assert said in found


def test_a_python_that_really_has_no_torch_says_so() -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(COLLECTIONS)!r})\n"
        "from ansible_collections.tenant.gpu.plugins.module_utils import load_formats\n"
        "print(load_formats.missing_library([('a.pt', 'torch')]))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{sys.executable} has no torch"
