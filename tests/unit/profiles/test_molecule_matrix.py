# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The matrix is what the scenarios run, and a cell that did not run, or changed too much, is told by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
MOLECULE = ROOT / "extensions/molecule"
# What all six roles run on; the others are at least rented and ended.
WHOLE = {"vast", "autodl", "runpod", "lambda", "paperspace", "aws_spot", "gpushare", "ssh"}
SHIPPED = {path.stem for path in (ROOT / "inventories/profiles/group_vars").glob("*.yml")}


@pytest.fixture(scope="module")
def matrix() -> Iterator[ModuleType]:
    spec = spec_from_file_location("molecule_matrix", MOLECULE / "matrix.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    # Its dataclasses look themselves up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def page() -> str:
    """Ansible changes the process that it reads playbooks in, so it reads them in a child."""
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections")}
    command = [sys.executable, str(MOLECULE / "matrix.py"), "show"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows_of(page: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows[2:]}


def test_the_page_in_the_repository_is_what_the_scenarios_run(page: str) -> None:
    assert (ROOT / "docs/molecule-matrix.md").read_text(encoding="utf-8").strip() == page.strip()


def test_every_platform_of_the_issue_has_every_role(page: str) -> None:
    rows = rows_of(page)
    for platform in WHOLE:
        assert all(cell in ("**repaired**", "again") for cell in rows[platform][:6]), rows[platform]
        assert rows[platform][6] == "6 roles", "make test touches each once"


def platforms_below(group: dict[str, Any]) -> set[str]:
    found = {name for name, one in group["children"].items() if "hosts" in one}
    return found.union(*(platforms_below(one) for one in group["children"].values() if "children" in one))


def test_every_dressed_platform_is_a_group_and_a_scenario(page: str) -> None:
    boxes = yaml.safe_load((MOLECULE / "inventory/hosts.yml").read_text())["boxes"]
    dressed = platforms_below(boxes["children"]["dressed"])
    assert dressed == {path.stem for path in (MOLECULE / "dress").glob("*.sh")} - {"init", "start", "console"}
    assert platforms_below(boxes) <= set(rows_of(page))
    own = {path.stem for path in (MOLECULE / "inventory/platforms").glob("*.yml")}
    assert platforms_below(boxes) <= SHIPPED | own


def test_every_platform_that_is_shipped_has_a_row_and_is_in_make_test(page: str) -> None:
    rows = rows_of(page)
    assert set(rows) >= SHIPPED
    assert [name for name in sorted(rows) if rows[name][6] == "-"] == []


def test_a_platform_without_boxes_says_what_was_run_instead(page: str) -> None:
    """A cell of Kubernetes is a module's: no role runs there, and none counts as run."""
    cells = rows_of(page)["kubernetes"]
    assert cells[:6] == ["**repaired**, by a module", "-", "-", "-", "-", "again, by a module"]
    assert cells[6] == "2 roles"
    assert "- **by a module**: the platform has no box" in page


def test_a_platform_of_a_team_is_known_by_its_yaml_alone() -> None:
    (own,) = (MOLECULE / "inventory/platforms").glob("*.yml")
    assert own.stem not in SHIPPED
    code = [ROOT / folder for folder in ("plugins", "roles", "playbooks", "src", "inventories")]
    files = [path for folder in code for path in folder.rglob("*") if path.suffix in (".py", ".yml", ".j2")]
    assert len(files) > 300
    assert [path for path in files if own.stem in path.read_text(encoding="utf-8")] == []


def planned(matrix: ModuleType) -> Any:
    visits = [matrix.Visit("deploy", "b1", changes) for changes in ("any", "none", "one", "none")]
    return matrix.Scenario("p", {"b1": "p"}, tuple(visits))


def ran(*changed: list[str], role: str = "tenant.gpu.deploy", host: str = "b1") -> list[dict[str, Any]]:
    return [{"role": role, "host": host, "ok": 3, "changed": names} for names in changed]


def test_what_ran_as_promised_is_no_problem(matrix: ModuleType) -> None:
    assert matrix.problems(planned(matrix), ran(["a", "b"], [], ["a"], [])) == []
    others = ran(["x"], role="tenant.gpu.train") + ran(["x"], host="b2")
    assert matrix.problems(planned(matrix), ran(["a"], [], ["a"], []) + others) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ((), "deploy on p (b1) is listed 4 times and ran 0 times"),
        ((["a"], [], ["a"]), "deploy on p (b1) is listed 4 times and ran 3 times"),
        ((["a"], ["Code | Copy"], ["a"], []), "run 2 of deploy on p (b1) must change none and changed: Code | Copy"),
        ((["a"], [], [], []), "run 3 of deploy on p (b1) must change one and changed: nothing"),
        ((["a"], [], ["a", "b"], []), "run 3 of deploy on p (b1) must change one and changed: a; b"),
    ],
)
def test_a_listed_cell_that_did_not_run_is_told(matrix: ModuleType, changed: tuple[list[str], ...], said: str) -> None:
    assert matrix.problems(planned(matrix), ran(*changed)) == [said]


def test_a_cell_is_as_good_as_its_runs(matrix: ModuleType) -> None:
    assert [matrix.level(runs) for runs in ([], ["any"], ["any", "none"], ["any", "none", "one"])] == [
        "-", "once", "again", "**repaired**",
    ]  # fmt: skip


def test_the_record_of_a_run_is_read_from_its_scenario(
    matrix: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATRIX_RECORDS", str(tmp_path))
    assert matrix.rows_of("p") == []
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ran(["a"], [])))
    assert matrix.rows_of("p") == ran(["a"], [])
