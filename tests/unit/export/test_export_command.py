# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The command: where the job goes, what is said beside it, and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import load_run_spec
from click.testing import CliRunner, Result
from export_places import PLACES

from gpu_tenant.cli import cli
from gpu_tenant.export import targets


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["export", *words])


@pytest.mark.parametrize("output", [[], ["--output", "-"]])
def test_the_job_goes_to_standard_output(spec_file: Path, output: list[str]) -> None:
    done = run("--to", "slurm", str(spec_file), "--checkpoints", "/scratch", *output)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("#!/bin/bash\n")
    assert done.stderr == ""


def test_a_file_is_written_whole_and_told_as_json(spec_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    words = ["--to", "kubernetes", str(spec_file), "--image", "train:1", "--output", str(path), "--json"]
    done = run(*words)
    told = json.loads(done.stdout)
    assert (told["event"], told["to"], told["output"]) == ("export", "kubernetes", str(path))
    assert [document["kind"] for document in yaml.safe_load_all(path.read_text())] == ["PersistentVolumeClaim", "Job"]
    before = path.read_bytes()
    assert run(*words).exit_code == 0
    assert path.read_bytes() == before


def test_what_a_request_cannot_carry_is_said_beside_it(spec_file: Path, tmp_path: Path) -> None:
    spec_file = _without_secrets(spec_file, tmp_path)
    place = PLACES["sagemaker"]
    words = ["--image", place.image, "--role", place.role, "--instance-type", place.instance_type]
    done = run("--to", "sagemaker", str(spec_file), "--cell", "seed-0", "--checkpoints", place.checkpoints, *words)
    assert json.loads(done.stdout)["EnableManagedSpotTraining"] is True
    assert "not done there: artifacts" in done.stderr
    told = run(
        "--to", "sagemaker", str(spec_file), "--cell", "seed-0", "--checkpoints", place.checkpoints, *words, "--json"
    )
    assert json.loads(json.loads(told.stdout)["text"]) == json.loads(done.stdout)
    assert any(note.startswith("stall_s") for note in json.loads(told.stdout)["notes"])


def _without_secrets(spec_file: Path, tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/train.py").touch()
    path = tmp_path / "run.yml"
    path.write_text(spec_file.read_text().replace("secrets: [HF_TOKEN]\n", ""))
    return path


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--to", "slurm"], 10, "--checkpoints"),
        (["--to", "slurm", "--checkpoints", "/a", "--cell", "seed-9"], 10, "has no cell 'seed-9'"),
        (["--to", "slurm", "--checkpoints", "/a", "--output", "/dev/null/x"], 10, "cannot be written"),
        (["--to", "moon"], 2, "moon"),
        ([], 2, "--to"),
    ],
)
def test_what_cannot_be_done_has_its_exit_code(spec_file: Path, words: list[str], code: int, said: str) -> None:
    done = run(str(spec_file), *words)
    assert done.exit_code == code, done.output
    assert said in done.stderr


def test_a_refusal_says_what_is_safe_and_what_to_do_in_json(spec_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    done = run(str(spec_file), "--to", "slurm", "--output", str(path), "--json")
    failure = json.loads(done.stdout)["failure"]
    assert done.exit_code == 10
    assert all(failure[key] for key in ("what", "safe", "fix"))
    assert not path.exists()


@pytest.mark.parametrize("target", targets.TARGETS)
def test_each_key_that_a_target_does_not_honour_is_named(one_cell: dict[str, Any], target: str) -> None:
    asked = {
        "candidates": ["vast"],
        "budget": {"usd": 3},
        "smoke": ["python", "x"],
        "evaluate": ["python", "y"],
        "progress": {"source": "regex"},
        "resources": {**one_cell["resources"], "min_gpu_ram_gb": 20, "anything": 1},
        "stall_s": 60,
        "cell_timeout_s": 3600,
        "checkpoint": {"prune": "spare"},
        "tracker": {"name": "tensorboard", "mode": "online", "project": "", "entity": ""},
        "requirements": "requirements.txt",
    }
    rendered = targets.render(target, {**one_cell, **asked}, PLACES[target])
    for key in [*asked, "artifacts"]:
        assert any(note.startswith(key) for note in rendered.notes), key
    assert any("min_gpu_ram_gb" in note and "anything" in note for note in rendered.notes)
    if rendered.says_notes:
        words = " ".join(rendered.text.replace("\n#", " ").split())
        assert all(" ".join(note.split()) in words for note in rendered.notes)


def test_the_examples_of_the_project_can_be_exported() -> None:
    spec = load_run_spec(str(Path(__file__).parents[3] / "examples/digits/run.yml"))
    for target in targets.TARGETS:
        assert "train.py" in targets.render(target, spec, PLACES[target]).text


def test_the_trainer_is_told_by_the_names_that_the_supervisor_uses(one_cell: dict[str, Any]) -> None:
    text = targets.render("slurm", one_cell, PLACES["slurm"]).text
    for name in ("RUN_ID", "CELL", "SEED", "CHECKPOINT_DIR", "METRICS", "GRACE_S", "OUTPUT_DIR"):
        assert f"export TENANT_{name}=" in text
