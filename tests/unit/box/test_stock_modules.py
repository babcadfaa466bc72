# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Law 8: Ansible believes facts in whatever a module of its own answers, so none of those runs on a rented box."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("roles", "playbooks", "examples", "extensions/awx")
# These never run anywhere but on the controller, wherever the task's box is.
ON_THE_CONTROLLER = {
    f"ansible.builtin.{name}"
    for name in (
        "add_host", "assert", "debug", "fail", "group_by", "import_role", "import_tasks", "include_role",
        "include_tasks", "include_vars", "meta", "pause", "set_fact", "set_stats",
    )
}  # fmt: skip
LISTS = ("tasks", "pre_tasks", "post_tasks", "handlers", "block", "rescue", "always")


def files() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.yml"))


def tasks(entries: Any, here: bool = False) -> Iterator[tuple[dict[str, Any], bool]]:
    """Every task of a file, and whether it runs on this machine."""
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict):
            continue
        local = here or entry.get("delegate_to") == "localhost" or entry.get("connection") == "local"
        below = [name for name in LISTS if name in entry]
        for name in below:
            yield from tasks(entry[name], local)
        if not below and "hosts" not in entry:
            yield entry, local


def modules(task: dict[str, Any]) -> list[str]:
    """By its full name, which ansible-lint asks for; also behind the old way to say it."""
    told = [task["action"]] if "action" in task else []
    named = [str(each.get("module") if isinstance(each, dict) else each).split()[0] for each in told]
    return [*named, *(name for name in task if str(name).count(".") >= 2)]


def refused(text: str) -> list[str]:
    """What of a file runs on a box by Ansible's own way."""
    return [
        f"{task.get('name')}: {name}"
        for task, here in tasks(yaml.safe_load(text))
        for name in modules(task)
        if not here and name not in ON_THE_CONTROLLER and not has_our_action(name)
    ]


def has_our_action(module: str) -> bool:
    """A module of ours without one is run by Ansible's, which passes on the box's answer."""
    return module.startswith("tenant.gpu.") and (ROOT / "plugins/action" / f"{module.split('.')[-1]}.py").is_file()


def plays(entries: Any) -> Iterable[dict[str, Any]]:
    return [entry for entry in entries if isinstance(entry, dict) and "hosts" in entry]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_runs_on_a_box_but_by_an_action_of_ours(path: Path) -> None:
    assert refused(path.read_text()) == []


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_play_has_a_box_tell_its_facts(path: Path) -> None:
    entries = yaml.safe_load(path.read_text())
    for play in plays(entries if isinstance(entries, list) else []):
        assert play.get("gather_facts") is False, path


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_task_is_polled_by_ansible_itself(path: Path) -> None:
    """With a poll of its own, Ansible asks the box by its own module and passes the answer on."""
    for task, here in tasks(yaml.safe_load(path.read_text())):
        assert here or "async" not in task or task.get("poll") == 0, task.get("name")


@pytest.mark.parametrize(
    "text",
    [
        "- name: x\n  ansible.builtin.command: du\n",
        "- name: x\n  ansible.builtin.async_status:\n    jid: 1\n",
        "- name: x\n  action: ansible.builtin.setup\n",
        "- name: x\n  action:\n    module: ansible.builtin.raw\n",
        "- name: x\n  tenant.gpu.copy_info:\n    root: /\n",
        "- name: x\n  block:\n    - name: y\n      ansible.builtin.slurp:\n        src: /etc/passwd\n",
        "- name: x\n  rescue:\n    - name: y\n      ansible.builtin.stat:\n        path: /\n  block: []\n",
        "- hosts: all\n  pre_tasks:\n    - name: y\n      ansible.builtin.package_facts:\n",
        "- name: x\n  ansible.builtin.command: du\n  delegate_to: other-box\n",
    ],
)
def test_each_way_to_say_it_is_seen(text: str) -> None:
    assert len(refused(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "- name: x\n  ansible.builtin.command: du\n  delegate_to: localhost\n",
        "- name: x\n  delegate_to: localhost\n  block:\n    - name: y\n      ansible.builtin.command: du\n",
        "- hosts: all\n  connection: local\n  tasks:\n    - name: y\n      ansible.builtin.command: du\n",
        "- name: x\n  tenant.gpu.box_command:\n    argv: [du]\n",
        "- name: x\n  ansible.builtin.debug:\n",
    ],
)
def test_what_does_not_run_on_a_box_is_not(text: str) -> None:
    assert refused(text) == []
