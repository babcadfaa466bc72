# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which cells a new box need not run: those that are finished and whole at home."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import home_contents, roster
from ansible_collections.tenant.gpu.plugins.module_utils.box import manifest, records
from ansible_collections.tenant.gpu.plugins.module_utils.finished_cells import finished_cells

HERE = ("new", 1)
SPEC = "a" * 64


class Home:
    """Results as harvests leave them."""

    def __init__(self, folder: Path) -> None:
        self.results = folder / "results"

    def bring(self, box: str, cells: dict[str, dict[str, bytes]], spec: str = SPEC, done: Any = None) -> Path:
        """Cells of a box by their files below ``a1``, each with a done record that promises them all."""
        root = self.results / "vision" / "digits" / box / "g1"
        lines = []
        for cell, files in cells.items():
            promised = [self._write(root, f"{cell}/a1/{name}", data) for name, data in files.items()]
            record = json.dumps({"artifacts": promised} if done is None else done).encode()
            lines += [*promised, self._write(root, f"{cell}/a1/done.json", record)]
        identity = {"project": "vision", "box": box, "generation": 1, "provider_id": "7"}
        records.write_record(str(root / "manifest.json"), "manifest", manifest.build(identity, "digits", spec, lines))
        return root

    def _write(self, root: Path, path: str, data: bytes) -> dict[str, Any]:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
        sha256, role = records.sha256_file(str(root / path)), "log" if path.endswith(".log") else "other"
        return {"path": path, "bytes": len(data), "sha256": sha256, "role": role, "loader": "none"}

    def found(self, spec: str = SPEC, only_from: str = "") -> list[dict[str, Any]]:
        return finished_cells(str(self.results), "vision", "digits", HERE, spec, only_from)

    def cells(self, **options: Any) -> list[str]:
        return [each["cell"] for each in self.found(**options)]


FILES = {"out/model.pt": b"weights", "out/deep/m.json": b"{}"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_a_finished_cell_comes_with_all_that_it_promises_and_its_record_last(home: Home) -> None:
    root = home.bring("b1", {"c1": FILES, "c2": FILES})
    first, second = home.found()
    assert (first["cell"], first["attempt"], first["dest"]) == ("c1", "a1", "c1/a1")
    assert first["shares"] == [
        {"folder": str(root / "c1/a1"), "paths": ["out/deep/m.json", "out/model.pt"]},
        {"folder": str(root / "c1/a1"), "paths": ["done.json"]},
    ]
    assert first["bytes"] == sum(path.stat().st_size for path in (root / "c1").rglob("*") if path.is_file())
    assert second["cell"] == "c2"


def test_one_that_promises_nothing_is_its_record_alone(home: Home) -> None:
    home.bring("b1", {"c1": {}})
    (found,) = home.found()
    assert [share["paths"] for share in found["shares"]] == [["done.json"]]


@pytest.mark.parametrize("name", ["out/model.pt", "done.json"])
@pytest.mark.parametrize("how", ["changed", "gone", "linked"])
def test_what_is_not_whole_at_home_is_run_again(home: Home, tmp_path: Path, name: str, how: str) -> None:
    path = home.bring("b1", {"c1": FILES, "c2": FILES}) / "c1/a1" / name
    data = path.read_bytes()
    path.unlink()
    if how == "changed":
        path.write_bytes(data[::-1])
    elif how == "linked":
        (tmp_path / "elsewhere").write_bytes(data)
        path.symlink_to(tmp_path / "elsewhere")
    assert home.cells() == ["c2"]


LINE = {"path": "c1/a1/out/model.pt", "bytes": 7, "sha256": "0" * 64}


@pytest.mark.parametrize(
    "done",
    [
        {"artifacts": [LINE]},  # not what came home
        {"artifacts": [{**LINE, "path": "c1/a1/out/left.pt"}]},
        {"artifacts": [{**LINE, "path": "../../../etc/passwd"}]},
        {"artifacts": [{"path": "c1/a1/out/model.pt"}]},
        {"artifacts": ["c1/a1/out/model.pt"]},
        {"artifacts": {"path": 3}},
        {"artifacts": [{**LINE, "path": ["c1"]}]},
        {},
        [],
        "done",
    ],
)
def test_a_record_that_promises_what_is_not_home_is_no_end(home: Home, done: Any) -> None:
    home.bring("b1", {"c1": FILES}, done=done)
    assert home.cells() == []


def test_only_this_spec_and_only_other_machines_count(home: Home) -> None:
    home.bring("b1", {"c1": FILES}, spec="b" * 64)
    home.bring("new", {"c2": FILES})
    assert home.cells() == []
    assert home.cells(spec="b" * 64) == ["c1"]


def test_of_a_run_with_shares_only_the_boxes_own_count(home: Home) -> None:
    home.bring("b1", {"c1": FILES})
    home.bring("b2", {"c2": FILES})
    assert home.cells() == ["c1", "c2"]
    assert home.cells(only_from="b2") == ["c2"]


def test_a_cell_that_two_boxes_finished_comes_once(home: Home) -> None:
    home.bring("b1", {"c1": FILES})
    home.bring("b2", {"c1": FILES})
    assert home.cells() == ["c1"]


# --- without the logs ---------------------------------------------------------------------------------------------


def leave_logs(root: Path) -> None:
    """As ``harvest_roles`` without ``log`` leaves it: the done record goes on promising them."""
    record = json.loads((root / "manifest.json").read_text())
    lines = [line for line in record["files"] if line["role"] != "log"]
    identity = {key: record[key] for key in ("project", "box", "generation", "provider_id")}
    records.write_record(str(root / "manifest.json"), "manifest", manifest.build(identity, "digits", SPEC, lines))
    for path in root.rglob("*.log"):
        path.unlink()


def test_what_the_gate_calls_finished_without_its_log_is_not_trained_again(home: Home) -> None:
    root = home.bring("b1", {"c1": {**FILES, "run.log": b"words"}})
    whole = home.found()[0]["shares"][0]["paths"]
    leave_logs(root)
    assert home_contents.of_manifest(str(root), roster.read_manifest(str(root))).attempts["c1/a1"].finished
    (found,) = home.found()
    assert [found["shares"][0]["paths"], whole] == [sorted(FILES), sorted([*FILES, "run.log"])]
    (root / "c1/a1/out/model.pt").unlink()
    assert home.cells() == []


def test_a_damaged_log_stays_at_home_and_its_cell_is_finished_all_the_same(home: Home) -> None:
    (home.bring("b1", {"c1": {**FILES, "run.log": b"words"}}) / "c1/a1/run.log").write_bytes(b"sword")
    assert home.found()[0]["shares"][0]["paths"] == sorted(FILES)
