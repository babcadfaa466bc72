# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Law 8 over a real sshd: a box whose every program answers with facts of its choice, and the ssh of the controller."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import resting_copy
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from folder_manifest import of_lines
from loopback_sshd import ALIAS, REPOSITORY, LoopbackBox, loopback_box, wait_for

pytestmark = pytest.mark.integration
# The tasks of the roles that have a program of the box answer, as they stand there.
ASKING = {
    "proof": ("train/tasks/launch.yml", "Launch | Wait for the proof"),
    "stop": ("box/tasks/stop_by_hand.yml", "Stop | Run what the platform stops by"),
    "folder": ("teardown/tasks/slurm.yml", "Slurm | See what lies there"),
}
VARIABLES = {
    "__train_job": {"ansible_job_id": "1.1"},
    "train_proof_within_s": 1,
    "box_stop_verbs": [{"verb": "stop", "transport": "box", "command": ["du"]}],
    "teardown_root": "/",
    "ansible_ssh_timeout": 5,
}
# As a team may have the fact say where to connect, and unchecked: no fact may be there.
BY_HOST = {"ansible_host": "{{ ansible_facts['box_endpoint']['host'] | default('127.0.0.1') }}"}
TOLD = "box_endpoint {{ 'box_endpoint' in ansible_facts }}, hosts {{ groups['all'] | sort | join(' ') }}"


class Hostile:
    """A box on which Python and du print an answer that Ansible would act on."""

    def __init__(self, box: LoopbackBox, folder: Path) -> None:
        self.box, self.folder = box, folder
        self.mark = folder / "ran-on-the-controller"
        self.endpoint = {
            "host": f"-oProxyCommand=touch {self.mark}",
            "alias": f"x -o ProxyCommand=touch${{IFS}}{self.mark}",
        }
        answer = {
            "changed": False,
            "finished": 1,
            "started": 1,
            "rc": 0,
            "stdout": "1 x",
            "ansible_job_id": "1.1",
            "ansible_facts": {"box_endpoint": self.endpoint, "ansible_host": self.endpoint["host"]},
            "add_host": {"host_name": "planted", "host_vars": {"ansible_connection": "local"}, "groups": []},
        }
        self.says(answer)

    def says(self, answer: dict[str, Any]) -> None:
        for name in ("python", "du"):
            program = self.box.home / "hostile" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(f"#!/bin/sh\n: >{self.box.home}/asked\necho {shlex.quote(json.dumps(answer))}\n")
            program.chmod(0o755)

    def play(self, tasks: list[dict[str, Any]], **variables: Any) -> str:
        python = str(self.box.home / "hostile/python")
        host = self.box.host_variables(ansible_python_interpreter=python, **VARIABLES, **variables)
        inventory, book = self.folder / "hosts.json", self.folder / "play.yml"
        inventory.write_text(json.dumps({"all": {"hosts": {"box1": host}}}))
        book.write_text(yaml.safe_dump([{"hosts": "box1", "gather_facts": False, "tasks": tasks}]))
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(inventory), str(book)]
        environment = dict(self.box.environment(), PATH=os.environ["PATH"])
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        return done.stdout + done.stderr


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Hostile]:
    with loopback_box() as box:
        yield Hostile(box, tmp_path)


def task_of(name: str) -> dict[str, Any]:
    path, wanted = ASKING[name]
    waiting = list(yaml.safe_load((REPOSITORY / "roles" / path).read_text()))
    while waiting:
        task: dict[str, Any] = waiting.pop()
        if task["name"] == wanted:
            return {key: value for key, value in task.items() if key not in ("when", "failed_when", "retries")}
        waiting += [each for part in ("block", "rescue", "always") for each in task.get(part, [])]
    raise AssertionError(f"{path} has no task {wanted}")


def connecting() -> dict[str, Any]:
    return {"name": "next", "tenant.gpu.box_command": {"argv": ["true"]}, "ignore_errors": True}


@pytest.mark.parametrize("name", sorted(ASKING))
def test_law_8_no_answer_of_a_box_says_where_the_controller_connects_next(name: str, hostile: Hostile) -> None:
    hostile_path = f"{hostile.box.home}/hostile:/usr/bin:/bin"
    tasks = [
        {**task_of(name), "environment": {"PATH": hostile_path}, "ignore_errors": True},
        {"name": "told", "ansible.builtin.debug": {"msg": TOLD}},
        {**connecting(), "ignore_unreachable": True},
    ]
    said = hostile.play(tasks, **BY_HOST)
    wait_for((hostile.box.home / "asked").exists, seconds=60, what="the box to be asked")
    assert "box_endpoint False, hosts box1" in said, said
    assert not hostile.mark.exists(), "a box had a program run on the controller"


def test_law_8_a_fact_that_was_believed_by_mistake_becomes_no_option_of_ssh(hostile: Hostile) -> None:
    profile = yaml.safe_load((REPOSITORY / "inventories/profiles/group_vars/vast.yml").read_text())
    for part, variable in (("host", "ansible_host"), ("alias", "ansible_ssh_common_args")):
        endpoint = {"host": "127.0.0.1", "alias": ALIAS, part: hostile.endpoint[part]}
        believe = {"name": "believe", "ansible.builtin.set_fact": {"box_endpoint": endpoint, "cacheable": True}}
        said = hostile.play(
            [believe, {**connecting(), "ignore_unreachable": True}],
            **{"tenant_state_dir": str(hostile.folder), variable: profile[variable]},
        )
        assert "ssh_word" in said, said
        assert "Nothing was connected to" in said
        assert not hostile.mark.exists(), "a fact became an option of ssh"


IDENTITY = BoxIdentity("demo", "box1", 1, "77")
VERDICT = {**IDENTITY.as_dict(), "run_id": "r1", "passed": False, "reason": "no_losses", "why": "so"}
ODD: dict[str, list[dict[str, Any]]] = {
    "resume_drill": [
        {"drill": {**VERDICT, "log_tail": 5}},
        {"drill": {**VERDICT, "passed": True, "loss": float("nan")}},
    ],
    "copy_reading": [{"problems": [], "boot_id": float("nan"), "device": 1}],
    "resting_copy": [{"index": [1]}, {"seal": "x", "index": IDENTITY.as_dict()}],
}


def odd_tasks(folder: Path) -> dict[str, dict[str, Any]]:
    """The three tasks that read deep into what a module on the box answers, and what they need to get there."""
    store, copy = StateStore(str(folder / "store")), "/copies/box1.g1"
    resting_copy.save_record(store, IDENTITY, at_rest=True, dest_path=copy, asked_at="2026-11-23T00:00:00Z")
    line = {"path": "a", "bytes": 1, "sha256": "0" * 64, "role": "other", "loader": "none"}
    (folder / "manifest.json").write_text(json.dumps(of_lines([line])))
    about = {**IDENTITY.as_dict(), "state_dir": str(folder / "store")}
    return {
        "resume_drill": {**about, "tenant_root": "/d", "run_id": "r1"},
        "copy_reading": {
            **about,
            "uri": "mount://autodl.data/x",
            "root": "/d",
            "manifest": str(folder / "manifest.json"),
        },
        "resting_copy": {**about, "tenant_root": copy},
    }


def test_law_8_what_is_read_deep_into_is_the_box_s_failure_where_its_form_is_odd(hostile: Hostile) -> None:
    tasks = odd_tasks(hostile.folder)
    before = sorted(path for path in (hostile.folder / "store").rglob("*") if path.is_file())
    for name, answers in ODD.items():
        for answer in answers:
            hostile.says({"changed": False, **answer})
            said = hostile.play([{"name": "ask", f"tenant.gpu.{name}": tasks[name], "ignore_errors": True}])
            assert "box1: the box answered in a form that our programs do not answer in" in " ".join(said.split()), said
            assert "Traceback" not in said
    assert sorted(path for path in (hostile.folder / "store").rglob("*") if path.is_file()) == before
