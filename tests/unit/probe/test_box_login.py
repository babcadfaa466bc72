# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The first login: tried until the box runs a command, and no longer than it was told to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.tenant.gpu.plugins.action import box_login


class Box:
    """Answers in turn what ``said`` holds; an ``echo`` repeats the word that it was asked for."""

    def __init__(self, *said: Any) -> None:
        self.said, self.asked, self.resets = list(said), 0, 0
        self.transport, self.become = "ssh", None
        self._shell = SimpleNamespace(tmpdir="/tmp/there")

    def reset(self) -> None:
        self.resets += 1

    def answer(self, command: str, executable: str) -> dict[str, Any]:
        assert executable == "/bin/sh"
        self.asked += 1
        said = self.said.pop(0)
        if isinstance(said, Exception):
            raise said
        return {"rc": 0, "stdout": command.removeprefix("echo ")} if said == "echo" else dict(said)


def login(box: Box, monkeypatch: pytest.MonkeyPatch, check_mode: bool = False, **options: Any) -> dict[str, Any]:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(box_login, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    task = SimpleNamespace(args=options, check_mode=check_mode, async_val=0, action="tenant.gpu.box_login")
    action = box_login.ActionModule(task, box, SimpleNamespace(), None, None, None)
    monkeypatch.setattr(action, "_low_level_execute_command", box.answer)
    result: dict[str, Any] = action.run(task_vars={"inventory_hostname": "vast-a"})
    return result


REFUSED = AnsibleConnectionFailure("Permission denied (publickey).")


def test_a_box_that_answers_is_asked_once_and_keeps_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box("echo")
    assert login(box, monkeypatch) == {"changed": False, "tries": 1}
    assert box.resets == 0


def test_it_is_tried_again_over_a_new_connection_until_it_lets_us_in(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(REFUSED, {"rc": 1, "stdout": "starting"}, "echo")
    assert login(box, monkeypatch)["tries"] == 3
    assert box.resets == 2


def test_an_endpoint_that_runs_no_command_is_no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(*[{"rc": 0, "stdout": "Welcome!"}] * 4)
    answer = login(box, monkeypatch, within_s=3)
    assert answer["failed"] is True
    assert answer["failure"]["kind"] == "unreachable"
    assert "runs no command" in answer["msg"]
    assert box.asked == 4


def test_it_ends_at_its_deadline_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(*[REFUSED] * 10)
    answer = login(box, monkeypatch, within_s=2.5, pause_s=1)
    assert "vast-a" in answer["msg"]
    assert "Permission denied" in answer["msg"]
    assert box.asked == 4


def test_in_check_mode_nobody_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert login(Box(), monkeypatch, check_mode=True)["skipped"] is True
