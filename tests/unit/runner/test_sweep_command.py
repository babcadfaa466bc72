# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Sharing cells out, moving those of a lost box, and that neither changes what another share is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import roster
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import load_run_spec
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from click.testing import CliRunner, Result

from gpu_tenant import hosts
from gpu_tenant.cli import cli

SPEC = """\
id: grid
code: {path: .}
command: [python, train.py]
cells:
  - {id: small, args: ["--width", "8"], seed: 1}
  - {id: wide, args: ["--width", "64"], seed: 1}
  - {id: deep, args: ["--depth", "9"], seed: 1}
artifacts: [{glob: "**", role: checkpoint, loader: none}]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("print('trained')\n")
    (tmp_path / "grid.yml").write_text(SPEC)
    variables = {"tenant_project": "p", "tenant_state_dir": str(tmp_path / ".tenant/state")}

    def resolve(limit: str, *unused: object) -> hosts.Inventory:
        return hosts.Inventory(tuple(hosts.BoxHost(name, variables) for name in limit.split(",")), "", (), ())

    monkeypatch.setattr(hosts, "resolve", resolve)
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["sweep", *words])


def shares(*words: str) -> dict[str, Any]:
    done = run(*words, "--json")
    assert done.exit_code == 0, done.output
    return {told["run"]: told for told in map(json.loads, done.stdout.splitlines())}


def bring_home(folder: Path, run_id: str, box: str, seconds: dict[str, float], complete: bool = True) -> None:
    """What a harvest of a share leaves: the cells' metrics and done records, and a receipt."""
    home = folder / "home" / run_id
    listed = []
    for cell, trained_s in seconds.items():
        line = json.dumps({"step": 1, "trained_s": trained_s}) + "\n"
        for name, text, role in (("metrics.jsonl", line, "metrics"), ("done.json", "{}", "other")):
            path = home / cell / "a1" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            sha256 = hashlib.sha256(text.encode()).hexdigest()
            listed.append({"path": f"{cell}/a1/{name}", "bytes": len(text), "sha256": sha256, "role": role})
    manifest = {"project": "p", "run_id": run_id, "box": box, "generation": 1, "files": listed}
    manifest["digest"] = roster.manifest_digest(manifest)
    records.write_record(str(home / "manifest.json"), "manifest", manifest)
    receipt = {"project": "p", "run_id": run_id, "box": box, "generation": 1, "complete": complete, "checks": []}
    receipt |= {"manifest_digest": manifest["digest"], "copies": [{"uri": home.as_uri()}]}
    store = StateStore(str(folder / ".tenant/state"))
    records.write_record(store.receipt_path("p", run_id, box, 1), "receipt", receipt)


def test_cells_are_shared_out_by_what_they_cost_when_they_were_measured(folder: Path) -> None:
    bring_home(folder, "grid", "old-box", {"small": 60.0, "wide": 600.0, "deep": 120.0})
    found = shares("split", "grid.yml", "-l", "a,b")
    assert {name: share["cells"] for name, share in found.items()} == {
        "grid.a": ["wide"],
        "grid.b": ["small", "deep"],
    }
    assert found["grid.b"]["expected_s"] == 180.0


def test_a_share_is_a_run_of_its_own_with_its_own_cells(folder: Path) -> None:
    found = shares("split", "grid.yml", "-l", "a,b,c")
    specs = {name: load_run_spec(share["spec"]) for name, share in found.items()}
    assert {name: spec["id"] for name, spec in specs.items()} == {name: name for name in found}
    whole = load_run_spec("grid.yml")
    assert sorted(cell["id"] for spec in specs.values() for cell in spec["cells"]) == ["deep", "small", "wide"]
    for spec in specs.values():
        assert spec["code_sha256"] == whole["code_sha256"], "the very code of the run"
        assert all(cell in whole["cells"] for cell in spec["cells"])


def test_check_says_it_and_writes_nothing(folder: Path) -> None:
    done = run("split", "grid.yml", "-l", "a,b", "--check", "--weight", "b=0")
    assert done.exit_code == 0, done.output
    assert "a: 3 cells" in done.output
    assert not (folder / ".tenant").exists()


def test_the_cells_of_a_lost_box_move_and_no_other_share_changes(folder: Path) -> None:
    before = shares("split", "grid.yml", "-l", "a,b,c")
    lost = next(name for name, share in before.items() if share["cells"] == ["small"])
    box = before[lost]["box"]
    others = [name for name in before if name != lost]
    kept = {name: load_run_spec(before[name]["spec"])["spec_sha256"] for name in others}
    after = shares("move", "grid.yml", box, "-l", "a,b,c")
    assert after[lost]["given_up"] is True
    assert after[lost]["cells"] == []
    [moved] = [share for name, share in after.items() if name not in before]
    assert (moved["cells"], moved["box"] != box) == (["small"], True)
    assert {name: load_run_spec(after[name]["spec"])["spec_sha256"] for name in others} == kept
    assert load_run_spec(moved["spec"])["id"] == moved["run"]
    again = run("move", "grid.yml", box, "-l", "a,b,c")
    assert again.exit_code == 10
    assert "has no share" in again.output


def test_what_a_lost_box_brought_home_stays_its_own(folder: Path) -> None:
    before = shares("split", "grid.yml", "-l", "a,b")
    lost = next(name for name, share in before.items() if len(share["cells"]) == 2)
    first, second = before[lost]["cells"]
    bring_home(folder, lost, before[lost]["box"], {first: 5.0}, complete=False)
    after = shares("move", "grid.yml", before[lost]["box"], "-l", "a,b")
    assert after[lost]["cells"] == [first]
    assert [share["cells"] for name, share in after.items() if name not in before] == [[second]]


def test_a_sweep_is_whole_once_every_cell_is_home(folder: Path) -> None:
    found = shares("split", "grid.yml", "-l", "a,b")
    for name, share in found.items():
        missing = run("check", "grid.yml", "-l", "a,b")
        assert missing.exit_code == 21
        assert "missing: cell" in missing.output
        bring_home(folder, name, share["box"], dict.fromkeys(share["cells"], 1.0))
    done = run("check", "grid.yml", "-l", "a,b", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["problems"], told["home"]) == ([], ["deep", "small", "wide"])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["check", "grid.yml", "-l", "a"], 10, "is no sweep yet"),
        (["split", "grid.yml", "-l", "a,b", "--weight", "z=2"], 10, "boxes that are not there"),
        (["split", "grid.yml", "-l", "a,b", "--weight", "a"], 2, "BOX=SPEED"),
        (["split", "grid.yml", "-l", "a", "--weight", "a=0"], 10, "no box with a weight"),
        (["split", "absent.yml", "-l", "a"], 10, "absent.yml"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(folder: Path, words: list[str], code: int, said: str) -> None:
    done = run(*words)
    assert done.exit_code == code, done.output
    assert said in done.output
    assert not (folder / ".tenant/sweeps").exists()


def test_a_sweep_is_split_once(folder: Path) -> None:
    shares("split", "grid.yml", "-l", "a,b")
    again = run("split", "grid.yml", "-l", "a,b,c")
    assert again.exit_code == 10
    assert "shared out already" in again.output
