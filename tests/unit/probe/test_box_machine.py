# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A box that moves, over its records: the same one at another address, and no other one in its place."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.tenant.gpu.plugins.action import box_machine
from ansible_collections.tenant.gpu.plugins.module_utils import box_endpoint, machine_mark
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

WANTED = {"hostname": "autodl-container-*"}
OLD, NEW = ("connect.westb.seetacloud.com", 30122), ("connect.westc.seetacloud.com", 41007)


class Platform:
    """A disk, the instance that has it, and the team that reaches it at some address."""

    def __init__(self, folder: Path) -> None:
        self.disk, self.state = folder / "disk", folder / "state"
        self.disk.mkdir()
        self.store = StateStore(str(self.state))
        self.host, self.port = OLD
        self.instance = "autodl-container-4a7f45b869-e38322e3"
        self.is_up, self.said = True, "Connection refused"
        self.contacts = 0
        self.wanted: Any = WANTED

    def endpoint(self) -> dict[str, Any]:
        """As box_locate has it."""
        known_as = machine_mark.lasting_id(self.store.read_box("vision", "a1", 1) or {})
        return box_endpoint.from_inventory("a1", self.host, self.port, "root", "", 1, False, known_as)

    def answer(self, script: str, executable: str) -> dict[str, Any]:
        self.contacts += 1
        if not self.is_up:
            raise AnsibleConnectionFailure(self.said)
        named = f"hostname() {{ echo {self.instance}; }}\n{script}"
        done = subprocess.run([executable, "-c", named], capture_output=True, text=True, timeout=600, check=False)
        return {"rc": done.returncode, "stdout": done.stdout}

    def ask(self, check_mode: bool = False, **options: Any) -> dict[str, Any]:
        args = {"project": "vision", "state_dir": str(self.state), **options}
        task = SimpleNamespace(args=args, check_mode=check_mode, async_val=0, action="tenant.gpu.box_machine")
        connection = SimpleNamespace(transport="ssh", become=None, _shell=SimpleNamespace(tmpdir="/tmp/there"))
        plain = SimpleNamespace(template=lambda value: value)
        action = box_machine.ActionModule(task, connection, SimpleNamespace(), None, plain, None)
        action._low_level_execute_command = self.answer
        variables = {
            "inventory_hostname": "a1",
            "platform_instance_id": self.wanted,
            "platform_data_dir": str(self.disk),
            "ansible_facts": {"box_endpoint": self.endpoint()},
        }
        result: dict[str, Any] = action.run(task_vars=variables)
        return result

    @property
    def record(self) -> dict[str, Any]:
        return self.store.read_box("vision", "a1", 1) or {}

    @property
    def verbs(self) -> list[str]:
        return [line["verb"] for line in Journal(self.store).lines()]


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return Platform(tmp_path)


@pytest.fixture
def marked(platform: Platform) -> Platform:
    platform.ask(state="marked")
    platform.store.update_box("vision", "a1", 1, admitted_at="2026-11-22T00:00:00Z")
    return platform


def test_the_first_admission_gives_it_an_id_that_says_no_address(platform: Platform) -> None:
    assert platform.ask()["why"] == "it has no mark yet"
    assert platform.contacts == 0, "before the first admission nobody looks"
    found = platform.ask(state="marked")
    known_as = found["ansible_facts"]["box_endpoint"]["provider_id"]
    assert found["changed"]
    assert platform.record["provider_id"] == known_as == platform.endpoint()["provider_id"]
    assert "connect" not in known_as
    assert json.loads((platform.disk / machine_mark.MARK_NAME).read_text())["id"] in known_as
    assert platform.verbs == ["machine_marked"]
    again = platform.ask(state="marked")
    assert (again["changed"], again["proven"]) == (False, True)


def test_another_address_is_noted_once_and_changes_nothing_else(marked: Platform) -> None:
    before = marked.endpoint()["provider_id"]
    marked.host, marked.port = NEW
    assert marked.ask(check_mode=True)["changed"]
    assert marked.ask(record=False)["moved_from"] == "connect.westb.seetacloud.com:30122"
    assert marked.verbs == ["machine_marked"]
    found = marked.ask(state="marked")
    assert (found["changed"], found["proven"]) == (True, True)
    assert marked.endpoint()["provider_id"] == before
    line = Journal(marked.store).lines()[-1]
    assert (line["verb"], line["before"]) == ("address_changed", "connect.westb.seetacloud.com:30122")
    assert (line["after"], line["provider_id"]) == ("connect.westc.seetacloud.com:41007", before)
    assert not marked.ask(state="marked")["changed"]


@pytest.mark.parametrize("state", ["proven", "marked"])
def test_a_clone_at_its_address_is_refused_by_every_play(marked: Platform, state: str) -> None:
    marked.instance = "autodl-container-d4594a8753-96d5e6b4"
    before = marked.record
    failure = marked.ask(state=state)["failure"]
    assert failure["kind"] == "probe_refused"
    assert "a clone of it that carries its mark" in failure["what"]
    assert marked.record == before


def test_a_mark_that_is_gone_is_not_made_anew(marked: Platform) -> None:
    (marked.disk / machine_mark.MARK_NAME).unlink()
    assert "its data disk was emptied" in marked.ask(state="marked")["failure"]["what"]
    assert not (marked.disk / machine_mark.MARK_NAME).exists()


def test_a_box_at_rest_is_no_failure_but_where_it_is_needed(marked: Platform) -> None:
    marked.is_up = False
    assert "Connection refused" in marked.ask()["why"]
    failure = marked.ask(required=True)["failure"]
    assert failure["kind"] == "unreachable"
    assert "copy its host and port anew from the console" in failure["fix"]


def test_a_box_that_lets_nobody_in_any_more_is_said_to_in_every_play(marked: Platform) -> None:
    """Its system was reset, or its key taken away: no box at rest says that, and no stranger shows its host key."""
    marked.is_up, marked.said = False, "root@connect: Permission denied (publickey,password)."
    failure = marked.ask()["failure"]
    assert "it lets nobody in" in failure["what"]
    assert "TENANT_PASSWORD_A1" in failure["fix"]


def test_an_id_by_address_is_kept_where_evidence_names_it(platform: Platform) -> None:
    address = platform.endpoint()["provider_id"]
    platform.store.update_box("vision", "a1", 1, provider_id=address, admitted_at="2026-11-22T00:00:00Z")
    platform.ask(state="marked")
    platform.host, platform.port = NEW
    assert platform.endpoint()["provider_id"] == address
    assert platform.ask(state="marked")["proven"]


def test_a_machine_that_names_no_instance_goes_on_by_its_address(platform: Platform) -> None:
    platform.instance = "gpu-7"
    found = platform.ask(state="marked")
    assert (found["changed"], found["proven"]) == (False, False)
    assert platform.endpoint()["provider_id"] == "ssh:connect.westb.seetacloud.com:30122"
    assert not list(platform.disk.iterdir())


def test_where_the_platform_names_nothing_nobody_is_asked(platform: Platform) -> None:
    platform.wanted = None
    assert platform.ask(state="marked", required=True)["why"] == "its platform names no instances"
    assert platform.contacts == 0


def test_a_check_run_marks_nothing(platform: Platform) -> None:
    assert not platform.ask(check_mode=True, state="marked")["changed"]
    assert platform.contacts == 0


def test_a_mark_without_its_record_is_found_again(marked: Platform) -> None:
    """The controller ended between the two, or its store was lost: the box says who it is."""
    known_as = marked.endpoint()["provider_id"]
    Path(marked.store.box_record_path("vision", "a1", 1)).unlink()
    assert marked.ask(state="marked")["ansible_facts"]["box_endpoint"]["provider_id"] == known_as
