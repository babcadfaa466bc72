# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A team with boxes of its own (platform ssh), a job, and the real playbooks: for tests that need several boxes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import load_run_spec
from loopback_sshd import LoopbackBox, loopback_box
from supervised_box import SupervisedBox, supervised_box

ROOT = Path(__file__).parents[2]
TRAINER = Path(__file__).with_name("helper_trainer.py")


class SshTeam:
    """:param spec: the run spec; its code is ``trainer``, as ``train.py``."""

    def __init__(self, folder: Path, spec: dict[str, Any], trainer: Path = TRAINER) -> None:
        self.folder = folder
        self.results = folder / "results"
        self.state_dir = folder / "state"
        self.job = folder / "job"
        self.job.mkdir()
        shutil.copy(trainer, self.job / "train.py")
        self.write_spec(spec)
        self._hosts: dict[str, dict[str, Any]] = {}
        self.sshd: dict[str, LoopbackBox] = {}
        self._open = contextlib.ExitStack()

    def write_spec(self, spec: dict[str, Any]) -> None:
        (self.job / "run.yml").write_text(yaml.safe_dump(spec))
        self.spec = load_run_spec(str(self.job / "run.yml"))

    def rent(self, name: str, **variables: Any) -> SupervisedBox:
        """A box behind a real sshd. ``box`` is its supervisor's folder, empty before deploy."""
        (self.folder / name).mkdir()
        box: SupervisedBox = self._open.enter_context(supervised_box(self.folder / name))
        ssh = self.sshd[name] = self._open.enter_context(loopback_box())
        self._hosts[name] = ssh.host_variables(platform_data_dir=str(box.root.parent), **variables)
        return box

    def close(self) -> None:
        self._open.close()

    def sources(self) -> list[str]:
        variables = {
            "tenant_project": "vision",
            "tenant_run": self.spec["source"],
            "tenant_state_dir": str(self.state_dir),
            "tenant_results_dir": str(self.results),
            "platform_python": sys.executable,
            "provision_require_cuda": False,
            "provision_smoke": False,
            "deploy_require_gpu": False,
        }
        inventory = {"ssh": {"hosts": self._hosts, "vars": variables}}
        (self.folder / "hosts.yml").write_text(json.dumps(inventory))
        (self.folder / "profiles.yml").write_text("plugin: tenant.gpu.profiles\n")
        return [word for name in ("profiles.yml", "hosts.yml") for word in ("-i", str(self.folder / name))]

    def play(self, name: str, box: str, *words: str, ok: bool = True) -> str:
        command = [str(Path(sys.executable).parent / "ansible-playbook"), f"playbooks/{name}.yml", "-l", box]
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.folder / "cp")}
        done = subprocess.run(
            [*command, *self.sources(), *words],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert (done.returncode == 0) is ok, done.stdout[-6000:] + done.stderr[-2000:]
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout


@contextlib.contextmanager
def ssh_team(folder: Path, spec: dict[str, Any], trainer: Path = TRAINER) -> Iterator[SshTeam]:
    team = SshTeam(folder, spec, trainer)
    try:
        yield team
    finally:
        team.close()
