# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Law 8: whatever a box says, the terminal of who runs a playbook obeys nothing of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.plugin_utils.box_call import _MARK
from tenant_plays import CORES, ROOT, Plays

pytestmark = pytest.mark.integration
OBEYED = ("\x1b", "\x9b", "\u202e", "\x07")
PID = "\x1b]0;mine\x07\x1b[2J\x9b2J\u202e"
IDENTITY = {"project": "demo", "box": "box1", "generation": 1, "provider_id": "7"}


def odd(word: str) -> str:
    """A text that clears the screen and turns the rest of the line, on several lines, and known again by ``word``."""
    return f"{PID}{word}-a\n\t{word}-b{PID}"


class HostileBox:
    """A box whose Python answers what a test wants, on standard output and standard error."""

    def __init__(self, core: str, folder: Path) -> None:
        self.plays, self.folder = Plays(ROOT / core / "bin", folder), folder
        (folder / "root/bin").mkdir(parents=True)
        self.pyz = folder / "root/bin/supervisor-0123456789ab.pyz"
        self.pyz.touch()
        self.tasks: list[dict[str, Any]] = []

    def python(self, name: str, answers: Sequence[dict[str, Any]], before: str = "") -> str:
        """An interpreter that prints these as JSON, with nothing escaped that may stand as itself, and then junk."""
        text = "\n".join(before + json.dumps(answer, ensure_ascii=False) for answer in answers)
        (self.folder / f"{name}.out").write_text(text + "\n")
        (self.folder / f"{name}.err").write_text(odd(f"{name}-stderr") + "\n")
        program = self.folder / name
        base = self.folder / name
        program.write_text(f"#!/bin/sh\ncat >/dev/null\ncat {base}.err >&2\ncat {base}.out\n")
        program.chmod(0o755)
        return str(program)

    def asked(
        self, name: str, module: str, options: dict[str, Any], *answers: dict[str, Any], before: str = ""
    ) -> None:
        python = self.python(name, answers, before)
        task = {"name": name, f"tenant.gpu.{module}": options, "vars": {"ansible_python_interpreter": python}}
        self.tasks.append({**task, "ignore_errors": True, "ignore_unreachable": True, "when": "not is_cut_off"})

    def said(self) -> str:
        # ssh's own standard error is that of what it connects by, as it is an sshd's banner elsewhere.
        banner = self.folder / "banner"
        banner.write_text(odd("banner") + "\n")
        way = f"-o ProxyCommand='sh -c \"cat {banner} >&2\"'"
        local = {"ansible_connection": "local", "is_cut_off": False}
        far = {"ansible_connection": "ssh", "ansible_ssh_common_args": way, "is_cut_off": True}
        self.plays.write_inventory({"all": {"hosts": {"box1": local, "box2": {**far, "ansible_host": "192.0.2.9"}}}})
        for name, module, options in (("login", "box_login", {"within_s": 0}), ("module", "tracker", {})):
            only = {"when": "is_cut_off", "ignore_errors": True, "ignore_unreachable": True}
            self.tasks.append({"name": f"cut-off-{name}", f"tenant.gpu.{module}": options, **only})
        _answers, done = self.plays.play(self.tasks, "--diff", "-v")
        return done.stdout + done.stderr


@pytest.fixture(params=CORES)
def box(request: pytest.FixtureRequest, tmp_path: Path) -> HostileBox:
    return HostileBox(request.param, tmp_path)


def test_no_answer_of_a_box_steers_the_terminal(box: HostileBox) -> None:
    root = {"tenant_root": str(box.folder / "root")}
    failing = {"error": odd("refused"), "fix": odd("fix"), "exit": 64}
    box.asked("refusing", "supervisor", {**root, "state": "status"}, failing)
    run = {"run_id": "digits", "waits_for": odd("waits"), "cells": [], "state": "queued"}
    status = {"box": "box1", "daemon": {"alive": True}, "runs": [run]}
    moved = {"before": {"supervisor": odd("before")}, "after": {"supervisor": "pending"}}
    box.asked("waiting", "supervisor", {**root, "state": "started", "run_id": "digits"}, moved, status)
    box.asked("broken", "supervisor", {**root, "state": "started", "run_id": "digits"})
    wrong = {"name": "KEY", "state": "wrong", "why": odd("wrong")}
    box.asked(
        "unproven", "secrets",
        {**root, "pyz": str(box.pyz), "python": str(box.folder / "unproven"), "path": "/d/env",
         "secrets": [{"name": "PATH", "env": "PATH", "file": "", "check": "none"}]},
        {"changed": True, "renewed": [], "secrets": [wrong], "before": {}, "after": {}},
    )  # fmt: skip
    there = {"path": "/d/f", "before": {"state": "file", "mode": odd("mode")}, "text": odd("text")}
    box.asked(
        "different", "box_files", {"files": [{"path": "/d/f", "content": "ours\n"}]},
        {"answer": {"differing": [there], "wanting": []}}, before=_MARK,
    )  # fmt: skip
    told = {
        "msg": odd("msg"),
        "changed": True,
        "warnings": [odd("warned")],
        "deprecations": [{"msg": odd("deprecated"), "version": "9.9"}],
        "diff": {"before": odd("old"), "after": odd("new"), "before_header": odd("header")},
        odd("key"): [odd("value")],
    }
    box.asked("module", "tracker", {}, told)
    box.asked("failing-module", "tracker", {}, {**told, "failed": True, "exception": odd("trace")})
    drill = {**IDENTITY, "run_id": "digits", "passed": False, "why": odd("drilled"), "log_tail": [odd("log")]}
    box.asked(
        "drill", "resume_drill",
        {**root, **IDENTITY, "run_id": "digits", "state_dir": str(box.folder / "state")},
        {"changed": True, "drill": drill},
    )  # fmt: skip
    said = box.said()
    for word in ("refused", "fix", "waits", "wrong", "text", "msg", "old", "new", "drilled", "log"):
        assert f"{word}-a" in said, (word, said)
    assert "banner-a" in said, said
    assert "broken-stderr-b" in said, said
    assert "-\ttext-b" in said, "a difference keeps its lines and tabs"
    for word in ("warned", "deprecated", "trace"):
        assert f"{word}-a" not in said, said
    lines = [ascii(line) for line in said.splitlines() if any(sign in line for sign in OBEYED)]
    assert not lines, "\n".join(lines)
