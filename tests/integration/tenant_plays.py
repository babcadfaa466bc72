# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Run tasks in a play of the real ansible-playbook, away from the user's own configuration."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CORES = [name for name in (".venv", ".venv-2.21") if (ROOT / name / "bin" / "ansible-playbook").exists()]
Done = subprocess.CompletedProcess[str]


@dataclass
class Plays:
    """One ansible-core and a folder with an inventory that has the platform profiles."""

    bin: Path
    folder: Path

    def write_inventory(self, hosts: dict[str, Any]) -> None:
        (self.folder / "hosts.yml").write_text(json.dumps(hosts), encoding="utf-8")
        (self.folder / "profiles.yml").write_text("plugin: tenant.gpu.profiles\n", encoding="utf-8")

    def play(
        self, tasks: list[dict[str, Any]], *arguments: str, ok: bool = True, hosts: str = "all", **environment: str
    ) -> tuple[dict[str, Any], Done]:
        """Run the tasks; what each returned, by its name (for several hosts: of the first), and how it ended."""
        answers = self.folder / "answers.json"
        answers.unlink(missing_ok=True)
        registered = [dict(task, register=f"answer_{number}") for number, task in enumerate(tasks)]
        content = ",".join(f"'{number}': answer_{number}" for number in range(len(tasks)))
        save = {
            "name": "Save",
            "ansible.builtin.copy": {
                "content": "{{ {" + content + "} | to_json }}",
                "dest": str(answers),
                "mode": "0600",
            },
            "delegate_to": "localhost",
            "run_once": True,
            "check_mode": False,
            "diff": False,
        }
        play = [{"hosts": hosts, "gather_facts": False, "tasks": [*registered, save]}]
        (self.folder / "play.yml").write_text(json.dumps(play), encoding="utf-8")
        (self.folder / "ansible.cfg").write_text("[defaults]\n", encoding="utf-8")
        known = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_FORKS": "8",
            "ANSIBLE_INJECT_FACT_VARS": "false",
            "ANSIBLE_INVENTORY_ENABLED": "tenant.gpu.profiles,ansible.builtin.yaml",
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "true",
            "ANSIBLE_SSH_ARGS": "-o ControlMaster=no",
            # The patience of conftest.py: nothing else of the environment goes along.
            "ANSIBLE_TIMEOUT": os.environ["ANSIBLE_TIMEOUT"],
            **environment,
        }
        command = [str(self.bin / "ansible-playbook"), "-i", "profiles.yml", "-i", "hosts.yml", "play.yml", *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=known, capture_output=True, text=True, timeout=600, check=False
        )
        assert "Traceback" not in done.stdout + done.stderr
        assert (done.returncode == 0) is ok, done.stdout + done.stderr
        found = json.loads(answers.read_text(encoding="utf-8")) if answers.exists() else {}
        return {tasks[int(number)]["name"]: answer for number, answer in found.items()}, done


def words(done: Done) -> str:
    """Everything that was printed, without the line breaks that the terminal's width made."""
    return " ".join((done.stdout + done.stderr).split())
