# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The managed job as SkyPilot's own parser understands it, and its script as a shell runs it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from export_places import PLACES
from official_clients import python_of

from gpu_tenant.export import skypilot, targets

Bash = Callable[..., CompletedProcess[str]]
PLACE = PLACES["skypilot"]
TRAINER = '#!/bin/sh\necho "$TENANT_CELL $TENANT_CHECKPOINT_DIR $*"\n'


def task_of(spec: dict[str, Any], cell: str = "", **place: Any) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(targets.render("skypilot", spec, replace(PLACE, **place), cell).text)
    return found


WRONG = {
    "": lambda task: task.update(mistake=1),
    "resources": lambda task: task["resources"].update(mistake=1),
    "file_mounts": lambda task: task["file_mounts"][skypilot.MOUNT].update(mistake=1),
    "exit codes": lambda task: task["resources"]["job_recovery"].update(recover_on_exit_codes=[300]),
    "mode": lambda task: task["file_mounts"][skypilot.MOUNT].update(mode="ONCE"),
}


def parse(*tasks: str | dict[str, Any]) -> list[dict[str, Any]]:
    """What SkyPilot makes of these, with what its command line would be given beside them."""
    asked = [
        {
            "text": task if isinstance(task, str) else json.dumps(task),
            "envs": {"TENANT_CELL": "seed-0"},
            "secrets": {"HF_TOKEN": "planted"},
        }
        for task in tasks
    ]
    python = python_of("skypilot")
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [python, str(Path(__file__).with_name("skypilot_parser.py"))],
            input=json.dumps(asked),
            env={"PATH": os.environ["PATH"], "HOME": home, "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_skypilot_s_own_parser_takes_each_export_and_refuses_a_wrong_one(spec: dict[str, Any]) -> None:
    """In one process: to import SkyPilot takes seconds."""
    with_all = {**spec, "requirements": "requirements.txt"}
    right = [
        targets.render("skypilot", spec, PLACE).text,
        targets.render("skypilot", with_all, replace(PLACE, image="train:1"), "seed-1").text,
        targets.render("skypilot", {**spec, "resources": {"gpu_count": 0}, "secrets": []}, PLACE).text,
    ]
    wrong = []
    for spoil in WRONG.values():
        wrong.append(task_of(spec))
        spoil(wrong[-1])
    whole, one_cell, bare, *refused = parse(*right, *wrong)
    assert (whole["name"], whole["use_spot"], whole["accelerators"]) == (task_of(spec)["name"], True, {"RTX4090": 2})
    assert whole["recovery"] == {"strategy": None, "max_restarts_on_errors": 3, "recover_on_exit_codes": [30]}
    assert whole["buckets"] == {skypilot.MOUNT: ["s3://my-bucket/runs", "MOUNT_CACHED"]}
    assert (whole["envs"], whole["secrets"]) == ({"TENANT_CELL": "seed-0"}, ["HF_TOKEN"])
    assert "train:1" in str(one_cell["image"])
    assert (bare["use_spot"], bare["accelerators"]) == (True, None)
    assert [name for name, told in zip(WRONG, refused, strict=True) if "refused" not in told] == []


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
