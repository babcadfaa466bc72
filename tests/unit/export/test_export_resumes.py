# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A run that was exported loses its machine, and goes on where it was: what each target would start is started here
twice, with the trainer killed in between and only what the target brings back still there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from export_places import PLACES

from gpu_tenant.export import sagemaker, skypilot, targets

HELPER = Path(__file__).resolve().parents[3] / "roles/deploy/files"
CODE = "/the/code"
TRAINER = """\
import json, os, signal, sys
import torch
from tenant_checkpoint import Checkpointer

model = torch.nn.Linear(1, 1)
checkpoints = Checkpointer({"model": model})
checkpoints.load_latest()
began = checkpoints.step
for step in range(began + 1, 7):
    with torch.no_grad():
        model.weight.fill_(float(step))
    checkpoints.step = step
    checkpoints.save(wait=True)
    if step == 4 and not began:
        os.kill(os.getpid(), signal.SIGKILL)
print(json.dumps({"began": began, "ended": checkpoints.step, "weight": float(model.weight), "argv": sys.argv[1:]}))
"""


class Machine:
    """What a target gives a run: a folder that outlives machines, and on each machine the code again."""

    def __init__(self, folder: Path) -> None:
        self.kept = folder / "kept"
        self.kept.mkdir()
        self._folder, self._count = folder, 0

    def run(self, argv: list[str], env: dict[str, str], script: str = "") -> subprocess.CompletedProcess[str]:
        self._count += 1
        home = self._folder / f"machine-{self._count}"
        (home / "code").mkdir(parents=True)
        (home / "code" / "train.py").write_text(TRAINER)
        (home / "bin").mkdir()
        stubs = {"python": f'exec {sys.executable} "$@"', "scontrol": "exit 0", "squeue": "echo RUNNING"}
        for name, does in stubs.items():
            (home / "bin" / name).write_text(f"#!/bin/sh\n{does}\n")
            (home / "bin" / name).chmod(0o755)
        own = {"PATH": f"{home}/bin:{os.environ['PATH']}", "HOME": str(home), "PYTHONPATH": str(HELPER)}
        words = [word.replace(CODE, str(home / "code")) for word in argv]
        return subprocess.run(
            words,
            input=script.replace(CODE, str(home / "code")),
            env={**env, **own},
            cwd=home / "code",
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )


Start = Callable[[Machine, dict[str, Any]], "subprocess.CompletedProcess[str]"]


def on_skypilot(machine: Machine, spec: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    task = yaml.safe_load(targets.render("skypilot", spec, PLACES["skypilot"]).text)
    script = task["run"].replace(skypilot.MOUNT, str(machine.kept))
    env = {name: value for name, value in task["envs"].items() if value is not None}
    return machine.run(["bash"], {**env, "TENANT_CELL": "seed-0"}, script)


def on_slurm(machine: Machine, spec: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    place = replace(PLACES["slurm"], checkpoints=str(machine.kept), code=CODE)
    return machine.run(["bash"], {"SLURM_JOB_ID": "7"}, targets.render("slurm", spec, place).text)


def on_kubernetes(machine: Machine, spec: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    job = list(yaml.safe_load_all(targets.render("kubernetes", spec, PLACES["kubernetes"]).text))[-1]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (mount,) = container["volumeMounts"]
    env = {each["name"]: each["value"].replace(mount["mountPath"], str(machine.kept)) for each in container["env"]}

    def expanded(word: str) -> str:
        """As a kubelet does: ``$$`` is a dollar, ``$(NAME)`` a variable."""
        found = re.sub(r"\$(\$|\((\w+)\))", lambda seen: "$" if seen[1] == "$" else env[seen[2]], word)
        return found.replace("/workspace", CODE)

    return machine.run([expanded(word) for word in [*container["command"], *container["args"]]], env)


def on_sagemaker(machine: Machine, spec: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    request = json.loads(targets.render("sagemaker", spec, replace(PLACES["sagemaker"], code=CODE)).text)
    local = request["CheckpointConfig"]["LocalPath"]
    assert local == sagemaker.LOCAL
    env = {name: value.replace(local, str(machine.kept)) for name, value in request["Environment"].items()}
    container = request["AlgorithmSpecification"]
    return machine.run([*container["ContainerEntrypoint"], *container["ContainerArguments"]], env)


@pytest.mark.parametrize("start", [on_skypilot, on_slurm, on_kubernetes, on_sagemaker])
def test_it_goes_on_from_its_newest_checkpoint_on_the_next_machine(
    start: Start, one_cell: dict[str, Any], tmp_path: Path
) -> None:
    machine = Machine(tmp_path)
    lost = start(machine, one_cell)
    assert lost.returncode != 0
    assert lost.stdout == "", lost.stderr
    assert len(list(machine.kept.rglob("step-*.pt"))) > 0, lost.stderr
    back = start(machine, one_cell)
    assert back.returncode == 0, back.stderr
    told = json.loads(back.stdout.splitlines()[-1])
    assert told == {"began": 4, "ended": 6, "weight": 6.0, "argv": ["--epochs", "3", "--seed", "0"]}
