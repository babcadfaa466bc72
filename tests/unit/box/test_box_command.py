# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A program on the box by a real shell: its exit code and its words, and a failure that names the box."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.action.box_command import ActionModule
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure


def run(argv: list[str], check_mode: bool = False, **more: Any) -> dict[str, Any]:
    made: Any = ActionModule.__new__(ActionModule)
    made._task = SimpleNamespace(check_mode=check_mode)
    made._compute_environment_string = lambda: "WORD=told"
    made._low_level_execute_command = by_shell
    params = {"argv": argv, "detach": False, "expected": [0], **more}
    told: dict[str, Any] = made.act(params, {"inventory_hostname": "box1"})
    return told


def by_shell(command: str, in_data: bytes, executable: str) -> dict[str, Any]:
    assert in_data, "Ansible's ssh would ask for a terminal"
    done = subprocess.run([executable, "-c", command], input=in_data, capture_output=True, timeout=60, check=False)
    return {"rc": done.returncode, "stdout": done.stdout.decode(), "stderr": done.stderr.decode()}


def test_what_it_said_is_told_in_the_environment_of_the_task() -> None:
    told = {"changed": True, "failed": False, "rc": 1, "stdout": "told\n"}
    assert run(["sh", "-c", "echo $WORD; exit 1"], expected=[0, 1]) == told


def test_a_program_that_reads_finds_nothing_to_read() -> None:
    assert run(["wc", "-c"])["stdout"].strip() == "0"


def test_words_without_end_are_cut() -> None:
    assert len(run(["sh", "-c", "yes | head -c 100000"])["stdout"]) <= 4000


def test_check_mode_runs_nothing() -> None:
    assert run(["/nonexistent/program"], check_mode=True)["skipped"] is True


@pytest.mark.parametrize("detach", [True, False])
def test_a_program_that_the_box_lacks_is_named(detach: bool) -> None:
    with pytest.raises(TenantFailure, match="has no program /nonexistent/program") as caught:
        run(["/nonexistent/program"], detach=detach)
    assert (caught.value.kind, caught.value.box) == ("config", "box1")


def test_another_exit_code_is_a_failure_with_its_last_words() -> None:
    with pytest.raises(TenantFailure, match="ended with 3: no room") as caught:
        run(["sh", "-c", "echo no room >&2; exit 3"])
    assert caught.value.box == "box1"
