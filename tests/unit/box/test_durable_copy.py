# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The durable copy: read back, compared, renamed; anything else is a refusal that leaves no half file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import durable, gates, records
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import AttemptPaths, Layout
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import Refused

PATH = "c1/a1/out/model.pt"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Layout, dict[str, Any], AttemptPaths, Path]:
    """An attempt with one artifact, and a folder that passes for a mount."""
    monkeypatch.setattr(gates, "durable_problem", lambda durable, root: "")
    layout = Layout(str(tmp_path / "root"))
    paths = layout.attempt("digits", "c1", 1)
    os.makedirs(paths.output)
    Path(paths.output, "model.pt").write_bytes(b"weights")
    mount = tmp_path / "mount"
    run = {
        "project": "p",
        "run_id": "digits",
        "box": "b1",
        "generation": 2,
        "durable": {"kind": "mount", "path": str(mount)},
    }
    return layout, run, paths, mount / "p" / "digits" / "b1" / "g2" / "c1" / "a1" / "out" / "model.pt"


def line(paths: AttemptPaths) -> dict[str, Any]:
    return {"path": PATH, "bytes": 7, "sha256": records.sha256_file(os.path.join(paths.output, "model.pt"))}


def test_a_copy_is_synced_and_not_made_twice(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, run, paths, target = place
    assert durable.copy_artifacts(layout, run, paths, [line(paths)])["state"] == "synced"
    assert target.read_bytes() == b"weights"
    monkeypatch.setattr(durable, "_copy_bytes", lambda source, target: pytest.fail("copied again"))
    assert durable.copy_artifacts(layout, run, paths, [line(paths)])["state"] == "synced"


@pytest.mark.parametrize("arrived", [b"weightz", b"weight", b"", b"weights!"])
def test_a_copy_that_reads_back_differently_is_refused(
    place: Any, monkeypatch: pytest.MonkeyPatch, arrived: bytes
) -> None:
    layout, run, paths, target = place
    monkeypatch.setattr(durable, "_copy_bytes", lambda source, target: Path(target).write_bytes(arrived))
    with pytest.raises(Refused) as refused:
        durable.copy_artifacts(layout, run, paths, [line(paths)])
    assert refused.value.code == 21
    assert list(target.parent.iterdir()) == []


def test_a_damaged_earlier_copy_is_replaced(place: Any) -> None:
    layout, run, paths, target = place
    target.parent.mkdir(parents=True)
    target.write_bytes(b"weightz")
    durable.copy_artifacts(layout, run, paths, [line(paths)])
    assert target.read_bytes() == b"weights"


@pytest.mark.parametrize("kind", ["none", "pull", "object"])
def test_what_is_not_copied_from_here_is_never_called_synced(place: Any, kind: str) -> None:
    layout, run, paths, target = place
    run["durable"] = {"kind": kind, "path": ""}
    assert durable.copy_artifacts(layout, run, paths, [line(paths)]) == {"kind": kind, "state": kind, "path": ""}
    assert not target.exists()


def test_a_folder_on_the_same_disk_is_no_mount(tmp_path: Path) -> None:
    mount = {"kind": "mount", "path": str(tmp_path)}
    assert "nothing is mounted" in gates.durable_problem(mount, str(tmp_path))
    assert "not there" in gates.durable_problem({"kind": "mount", "path": str(tmp_path / "x")}, str(tmp_path))
    assert gates.durable_problem({"kind": "pull", "path": ""}, str(tmp_path)) == ""
