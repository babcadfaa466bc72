# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a box writes is read up to a limit and no further; processes stand for ssh."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

from gpu_tenant import box_ssh, observe
from gpu_tenant.box_ssh import NoAnswer, run_ssh
from gpu_tenant.hosts import BoxHost

MIB = 1024 * 1024


def writes(what: str) -> list[str]:
    return [sys.executable, "-c", f"import sys\n{what}"]


def test_an_answer_comes_whole_with_its_code_and_what_was_said_beside() -> None:
    done = run_ssh(writes(f"sys.stdout.write('x' * {MIB}); sys.stderr.write('why'); sys.exit(7)"))
    assert (done.returncode, len(done.stdout), done.stderr) == (7, MIB, b"why")


def test_a_box_that_writes_without_end_is_cut_off() -> None:
    endless = writes("while True: sys.stdout.write('x' * 65536)")
    with pytest.raises(NoAnswer, match="longer than"):
        run_ssh(endless)


def test_the_limit_is_the_callers() -> None:
    command = writes("sys.stdout.write('x' * 1001)")
    assert len(run_ssh(command, 1001).stdout) == 1001
    with pytest.raises(NoAnswer):
        run_ssh(command, 1000)


def test_of_standard_error_the_end_is_kept() -> None:
    done = run_ssh(writes(f"sys.stderr.write('x' * {4 * MIB} + 'why')"))
    assert len(done.stderr) < MIB
    assert done.stderr.endswith(b"why")


def test_a_silent_box_is_waited_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box_ssh, "ANSWER_TIMEOUT_S", 0.2)
    with pytest.raises(NoAnswer, match="no answer within"):
        run_ssh(["tail", "-f", "/dev/null"])


def test_a_box_that_says_no_more_but_does_not_end_is_waited_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box_ssh, "ANSWER_TIMEOUT_S", 0.5)
    with pytest.raises(NoAnswer, match="no answer within"):
        run_ssh(writes("import os, signal; os.close(1); os.close(2); signal.pause()"))


def test_without_ssh_it_says_so() -> None:
    with pytest.raises(TenantFailure, match="ssh is not installed here"):
        run_ssh(["/nowhere/ssh"])


def test_a_box_that_answers_too_much_is_unreachable_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    variables = {"tenant_project": "demo", "platform_data_dir": "/data", "platform_python": "python3"}
    host = BoxHost("box-1", {**variables, "tenant_state_dir": str(tmp_path)})
    endless = writes("while True: sys.stdout.write('[' * 65536)")
    monkeypatch.setattr(observe, "ssh_command", lambda *of_box: endless)
    seen = observe.Observer([host], "").observe()["box-1"]
    assert (seen.contact, seen.run) == ("unreachable", None)
    assert "longer than 8.4 MB" in seen.problem
