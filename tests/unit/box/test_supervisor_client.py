# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The module's side: which program answers, what a status after a start means, refusals as failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.action import supervisor
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.supervisor_client import (
    SupervisorClient,
    find_program,
    judge_start,
    program_argv,
)
from ansible_collections.tenant.gpu.plugins.plugin_utils.supervisor_task import BoxClient, NoProgram, Task


def cell(state: str, liveness: str = "none", **more: Any) -> dict[str, Any]:
    return {"cell": "c1", "state": state, "liveness": liveness, "why": "", **more}


def status(*runs: tuple[str, str, dict[str, Any]], alive: bool = True) -> dict[str, Any]:
    listed = [{"run_id": name, "state": state, "cells": [each], "blocked_by": []} for name, state, each in runs]
    return {"box": "b1", "runs": listed, "daemon": {"alive": alive, "why": "nothing may go on"}}


@pytest.mark.parametrize(
    ("found", "run_id", "verdict"),
    [
        (status(("r", "running", cell("running", "alive", running_s=0.5, step=None))), "r", "wait"),
        (status(("r", "running", cell("running", "alive", running_s=2.5, step=None))), "r", "live"),
        (status(("r", "running", cell("running", "alive", running_s=0.1, step=7))), "r", "live"),
        (status(("r", "queued", cell("queued"))), "r", "wait"),
        (status(("r", "queued", cell("queued")), alive=False), "r", "dead"),
        # Adopted without a supervisor yet: the trainer itself lives.
        (status(("r", "running", cell("running", "alive", running_s=9)), alive=False), "r", "live"),
        (status(("r", "done", cell("done", "finished")), alive=False), "r", "live"),
        (status(("r", "failed", cell("failed", "dead")), alive=False), "r", "dead"),
        (status(("r", "blocked", cell("queued")), alive=False), "r", "dead"),
        (status(("r", "verifying", cell("verifying", "dead"))), "r", "live"),
        # It waits its turn behind a live cell of another run.
        (status(("q", "running", cell("running", "alive", step=1)), ("r", "queued", cell("queued"))), "r", "live"),
        (status(("q", "failed", cell("failed", "dead")), ("r", "queued", cell("queued"))), "r", "wait"),
        (status(("q", "failed", cell("failed", "dead")), ("r", "queued", cell("queued"))), "", "dead"),
        (status(), "r", "dead"),
    ],
)
def test_what_a_status_after_a_start_means(found: dict[str, Any], run_id: str, verdict: str) -> None:
    assert judge_start(found, run_id)[0] == verdict


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (10, "config"),
        (13, "probe_refused"),
        (14, "lease_held"),
        (15, "config"),
        (16, "gate_refused"),
        (22, "evidence_missing"),
    ],
)
def test_refusals_keep_their_words(code: int, kind: str) -> None:
    answer = json.dumps({"error": "what happened", "fix": "what to do", "exit": code})
    client = SupervisorClient(
        lambda argv, text: (code, answer, ""), program_argv("python3", "/x.pyz", "/root"), epoch=3
    )
    with pytest.raises(TenantFailure) as failure:
        client.call("start")
    assert (failure.value.kind, failure.value.what, failure.value.fix) == (kind, "what happened", "what to do")


@pytest.mark.parametrize("out", ["", "Traceback", "[]", '{"ok": 1}'])
def test_an_answer_that_is_none_is_a_failure(out: str) -> None:
    client = SupervisorClient(lambda argv, text: (1, out, "boom\n"), program_argv("python3", "/x.pyz", "/root"))
    with pytest.raises(TenantFailure, match="boom"):
        client.call("status")


def test_the_epoch_goes_with_every_verb_and_no_secret_into_argv() -> None:
    seen: list[list[str]] = []

    def run(argv: list[str], text: str) -> tuple[int, str, str]:
        seen.append(argv)
        return 0, "{}", ""

    client = SupervisorClient(run, program_argv("/usr/bin/python3", "/b/s.pyz", "/data"), epoch=4)
    client.call("register", "--run-file", "-", check=True, stdin='{"env": {"KEY": "hunter2"}}')
    assert seen == [
        ["/usr/bin/python3", "-I", "/b/s.pyz", "--root", "/data", "--epoch", "4", "--check"]
        + ["register", "--run-file", "-"]
    ]


def test_the_program_of_the_box_itself_is_preferred(tmp_path: Path) -> None:
    assert find_program(str(tmp_path)) == ""
    folder = tmp_path / "bin"
    folder.mkdir()
    old, new = folder / "supervisor-aaaaaaaaaaaa.pyz", folder / "supervisor-bbbbbbbbbbbb.pyz"
    for number, path in enumerate((old, new)):
        path.touch()
        os.utime(path, (1000 + number, 1000 + number))
    assert find_program(str(tmp_path)) == str(new)
    (folder / "resume-all").write_text(f'exec python3 "{old}" --root x resume-all\n')
    assert find_program(str(tmp_path)) == str(old)
    old.unlink()
    assert find_program(str(tmp_path)) == str(new)


def here(argv: list[str], text: str) -> tuple[int, str, str]:
    """This machine as the box."""
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


# Answers with its own name and what it was asked; a status is one of no runs, and "fail" fails.
PROGRAM = """
import json, os, sys
root, verb = sys.argv[2], sys.argv[-1]
if verb == "status":
    answer = {"runs": [], "by": os.path.basename(sys.argv[0])}
elif verb == "fail":
    answer = {"error": "refused", "exit": 14}
else:
    answer = {"asked": sys.argv[3:], "read": sys.stdin.read(), "by": os.path.basename(sys.argv[0])}
print(json.dumps(answer))
sys.exit(answer.get("exit", 0))
"""


def deployed(root: Path, *names: str) -> BoxClient:
    """A box with programs of these names, each newer than the one before."""
    folder = root / "bin"
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).write_text(PROGRAM)
        os.utime(folder / name, (1000 + number, 1000 + number))
    return BoxClient(here, sys.executable, "", str(root), epoch=4)


OLD, NEW = "supervisor-aaaaaaaaaaaa.pyz", "supervisor-bbbbbbbbbbbb.pyz"


def test_from_afar_the_same_program_is_found(tmp_path: Path) -> None:
    root = tmp_path / "a root"
    root.mkdir()
    client = deployed(root, OLD, NEW)
    assert client.call("status")["by"] == NEW
    (root / "bin/resume-all").write_text(f'exec python3 "{root}/bin/{OLD}" --root x resume-all\n')
    assert client.call("status")["by"] == OLD
    (root / "bin" / OLD).unlink()
    assert client.call("status")["by"] == NEW
    named = BoxClient(here, sys.executable, str(root / "bin" / OLD), str(root))
    with pytest.raises(NoProgram):
        named.call("status")


def test_a_verb_and_the_look_after_it_are_one_command(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def counted(argv: list[str], text: str) -> tuple[int, str, str]:
        asked.append(argv)
        return here(argv, text)

    deployed(tmp_path, NEW)
    client = BoxClient(counted, sys.executable, "", str(tmp_path), epoch=4)
    answer, seen = client.call_and_look("register", "--run-file", "-", check=True, stdin="{}")
    assert answer["asked"] == ["--epoch", "4", "--check", "register", "--run-file", "-"]
    assert (answer["read"], seen["runs"], len(asked)) == ("{}", [], 1)


def test_what_was_refused_is_not_looked_at(tmp_path: Path) -> None:
    with pytest.raises(TenantFailure, match="refused") as failure:
        deployed(tmp_path, NEW).call_and_look("fail")
    assert failure.value.kind == "lease_held"


@pytest.mark.parametrize("noise", ["bash: warning: setlocale: LC_ALL\n", "[1]\n3\n", "[" * 100_000 + "\n", "\n{\n"])
def test_what_a_login_prints_between_the_answers_is_none(noise: str) -> None:
    said = f'{noise}{{"before": {{}}}}\r\n{noise}{{"runs": []}}\r\n{noise}'
    client = BoxClient(lambda argv, text: (0, said, ""), "python3", "", "/root")
    assert client.call_and_look("start") == ({"before": {}}, {"runs": []})
    assert client.status() == {"runs": []}


def test_a_look_that_fails_after_a_verb_is_asked_again() -> None:
    """What the verb did is done: it must not be told as not done."""
    answers = iter([(1, '{"before": {}}\n{"error": "a record is damaged", "exit": 10}\n', ""), (0, '{"runs": []}', "")])
    client = BoxClient(lambda argv, text: next(answers), "python3", "", "/root")
    assert client.call_and_look("start") == ({"before": {}}, {"runs": []})


def params(**changes: Any) -> dict[str, Any]:
    known = {"tenant_root": "/nonexistent", "pyz": None, "run": None, "run_id": "r", "epoch": None, "state": "status"}
    return {
        **known,
        "grace_s": None,
        "stop_live": False,
        "retry_failed": False,
        "detach": "setsid",
        "detach_options": [],
        **changes,
    }


@pytest.mark.parametrize(
    ("state", "check", "changed"),
    [
        ("status", False, False),
        ("stopped", False, False),
        ("reconciled", False, False),
        ("started", True, True),
        ("registered", True, True),
    ],
)
def test_before_deploy(state: str, check: bool, changed: bool) -> None:
    result = Task(params(state=state, live_within_s=60), here, "python3").act(check)
    assert result["changed"] is changed
    assert result["supervisor"]["runs"] == []


@pytest.mark.parametrize("state", ["started", "registered", "sealed", "held"])
def test_without_a_program_acting_fails_and_says_what_to_do(state: str) -> None:
    task = Task(params(state=state, live_within_s=60), here, "python3")
    with pytest.raises(TenantFailure, match="deploy playbook"):
        task.act(False)


def test_what_a_started_run_waits_for_is_told() -> None:
    runs = [
        {"run_id": "r", "waits_for": "GPU 0, on which pid 7 holds 9 GB"},
        {"run_id": "s", "waits_for": ""},
        {"run_id": "t"},
    ]
    assert supervisor.waits({"supervisor": {"runs": runs}}) == ["Run r waits: GPU 0, on which pid 7 holds 9 GB."]
    assert supervisor.waits({"changed": True}) == []
