# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The managed job against SkyPilot's own schemas, and its script as a shell runs it.

SkyPilot itself asks for an older click than ours and for some sixty packages besides, so it cannot be installed beside
the tests; ``skypilot_schemas.json`` holds the schemas by which it checks a task.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import jsonschema
import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from export_places import PLACES

from gpu_tenant.export import skypilot, targets

Bash = Callable[..., CompletedProcess[str]]
PLACE = PLACES["skypilot"]
TRAINER = '#!/bin/sh\necho "$TENANT_CELL $TENANT_CHECKPOINT_DIR $*"\n'


def task_of(spec: dict[str, Any], cell: str = "", **place: Any) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(targets.render("skypilot", spec, replace(PLACE, **place), cell).text)
    return found


def validate(task: dict[str, Any]) -> None:
    schemas = json.loads(Path(__file__).with_name("skypilot_schemas.json").read_text())
    jsonschema.validate(task, schemas["task"])
    jsonschema.validate(task["resources"], schemas["resources"])
    for source in task["file_mounts"].values():
        if isinstance(source, dict):
            jsonschema.validate(source, schemas["storage"])


@pytest.mark.parametrize("cell", ["", "seed-1"])
def test_the_schemas_of_skypilot_take_it(spec: dict[str, Any], cell: str) -> None:
    validate(task_of({**spec, "requirements": "requirements.txt"}, cell, image="train:1"))


@pytest.mark.parametrize("part", ["", "resources", "file_mounts", "resources.job_recovery.recover_on_exit_codes"])
def test_a_wrong_task_would_be_seen(spec: dict[str, Any], part: str) -> None:
    task = task_of(spec)
    if part.endswith("exit_codes"):
        task["resources"]["job_recovery"]["recover_on_exit_codes"] = [300]
    elif part == "file_mounts":
        task["file_mounts"][skypilot.MOUNT]["mistake"] = 1
    else:
        (task[part] if part else task)["mistake"] = 1
    with pytest.raises(jsonschema.ValidationError):
        validate(task)


def test_it_recovers_on_spot_with_its_checkpoints_in_the_bucket(spec: dict[str, Any]) -> None:
    task = task_of(spec)
    assert task["resources"] == {
        "accelerators": {"RTX4090": 2},
        "use_spot": True,
        "disk_size": 66,
        "job_recovery": {"max_restarts_on_errors": 3, "recover_on_exit_codes": [30]},
    }
    assert task["file_mounts"][skypilot.MOUNT] == {"source": "s3://my-bucket/runs", "mode": "MOUNT_CACHED"}
    assert f"export TENANT_CHECKPOINT_DIR={skypilot.MOUNT}/grid.one/" in task["run"]
    assert task["workdir"] == spec["code_dir"]


def test_secrets_are_named_and_asked_for(spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "planted-value")
    rendered = targets.render("skypilot", spec, PLACE)
    assert yaml.safe_load(rendered.text)["secrets"] == {"HF_TOKEN": None}
    assert "planted-value" not in rendered.text
    assert "# sky jobs launch --secret HF_TOKEN --env TENANT_CELL=seed-1 THIS_FILE" in rendered.text


@pytest.mark.parametrize("cell", ["seed-0", "seed-1"])
def test_the_script_runs_the_cell_that_was_asked_for(
    spec: dict[str, Any], tmp_path: Path, run_bash: Bash, cell: str
) -> None:
    task = task_of(spec)
    assert task["envs"] == {"TENANT_CELL": None}
    script = task["run"].replace(skypilot.MOUNT, str(tmp_path / "bucket"))
    done = run_bash(script, {"python": TRAINER}, {"TENANT_CELL": cell})
    told, folder, *argv = done.stdout.split()
    assert told == cell
    assert argv == ["train.py", "--epochs", "3", "--seed", cell[-1]]
    assert Path(folder).is_dir()
    assert cell in Path(folder).parts
    wrong = run_bash(script, {"python": TRAINER}, {"TENANT_CELL": "seed-9"})
    assert (wrong.returncode, wrong.stdout) == (2, "")


def test_a_run_past_its_deadline_is_not_started_again(one_cell: dict[str, Any], tmp_path: Path, run_bash: Bash) -> None:
    script = task_of(one_cell)["run"].replace(skypilot.MOUNT, str(tmp_path / "bucket"))
    env = {"TENANT_CELL": "seed-0"}
    assert run_bash(script, {"python": TRAINER}, env).returncode == 0
    (started,) = (tmp_path / "bucket").rglob("started")
    started.write_text(str(int(started.read_text()) - 7200))
    late = run_bash(script, {"python": TRAINER}, env)
    assert (late.returncode, late.stdout) == (1, "")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ({"checkpoints": ""}, "--checkpoints"),
        ({"checkpoints": "/scratch"}, "no bucket"),
        ({"role": "me"}, "no use for --role"),
        ({"helper": "/a$B/tenant_checkpoint.py"}, "expands"),
    ],
)
def test_a_place_that_cannot_be_is_refused(spec: dict[str, Any], place: dict[str, str], said: str) -> None:
    with pytest.raises(TenantFailure, match=said):
        task_of(spec, **place)


def test_a_card_without_a_name_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(TenantFailure, match="name of a card"):
        task_of({**spec, "resources": {"gpu_count": 1}})
    assert task_of({**spec, "resources": {"gpu_count": 1}}, gpu="H100")["resources"]["accelerators"] == {"H100": 1}
