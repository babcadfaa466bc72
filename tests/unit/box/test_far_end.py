# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What is asked of a box over stdin: our modules go there whole, and what comes back is a stranger's word."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.action import box_files, checked_sync
from ansible_collections.tenant.gpu.plugins.module_utils import far_end
from ansible_collections.tenant.gpu.plugins.plugin_utils.asking_action import AskingAction
from box_pythons import pythons


class Box:
    """This machine as a box: a shell that says something by itself, and a Python without anything of ours."""

    transport, become, _shell = "ssh", None, SimpleNamespace(tmpdir=None)

    def __init__(self, folder: Path, noise: str = "", says: str | None = None) -> None:
        self.folder, self.noise, self.says = folder, noise, says

    def run(self, command: str, in_data: bytes, executable: str) -> dict[str, Any]:
        done = subprocess.run([executable, "-c", command], input=in_data, capture_output=True, cwd=self.folder)
        out = done.stdout.decode() if self.says is None else self.says
        return {"rc": done.returncode, "stdout": self.noise + out, "stderr": done.stderr.decode()}


def asking(box: Box, monkeypatch: pytest.MonkeyPatch, check_mode: bool = False) -> AskingAction:
    task = SimpleNamespace(args={}, check_mode=check_mode, async_val=0, action="tenant.gpu.any")
    templar = SimpleNamespace(template=lambda value: value)
    action = AskingAction(task, box, SimpleNamespace(), None, templar, None)
    monkeypatch.setattr(action, "_low_level_execute_command", box.run)
    return action


def survey(root: Path) -> dict[str, Any]:
    entry = {"path": "a", "bytes": 5, "sha256": hashlib.sha256(b"hello").hexdigest()}
    return {"op": "survey", "root": str(root), "files": [entry]}


def variables(python: str = sys.executable) -> dict[str, Any]:
    return {"inventory_hostname": "box1", "ansible_python_interpreter": python}


@pytest.mark.parametrize("python", pythons(), ids=lambda path: Path(path).parents[1].name)
def test_every_far_end_answers_from_a_python_that_has_nothing_of_ours(
    python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    action = asking(Box(tmp_path, noise="Welcome!\n"), monkeypatch)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/a").write_text("hello")
    found = action.ask_box(checked_sync.FAR_END, survey(tmp_path / "tree"), variables(python))
    assert (found["good"], found["extra"], found["python"]) == (["a"], [], python)
    wanted = {"path": str(tmp_path / "b"), "mode": "0644", "sha256": hashlib.sha256(b"x").hexdigest()}
    asked = {"folders": [], "files": [wanted], "contents": {}}
    assert action.ask_box(box_files.FAR_END, asked, variables(python))["wanting"] == [wanted["path"]]


def test_a_check_run_is_told_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"folders": [{"path": str(tmp_path / "new"), "mode": "0700"}], "files": [], "contents": {}}
    assert asking(Box(tmp_path), monkeypatch, check_mode=True).ask_box("box_files", asked, variables())["changed"]
    assert not (tmp_path / "new").exists()
    assert asking(Box(tmp_path), monkeypatch).ask_box("box_files", asked, variables())["changed"]
    assert (tmp_path / "new").is_dir()


def test_a_failure_that_speaks_there_speaks_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = {**survey(tmp_path / "tree"), "within": str(tmp_path / "other")}
    with pytest.raises(checked_sync.TenantFailure, match="not inside") as caught:
        asking(Box(tmp_path), monkeypatch).ask_box("delivery", elsewhere, variables())
    assert (caught.value.kind, caught.value.box) == ("config", "box1")
    assert caught.value.safe == "Nothing was put in its place"


@pytest.mark.parametrize("python", ["/nowhere/python3", "/bin/false"])
def test_a_box_without_a_usable_python_is_told_from_one_that_refuses(
    python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(checked_sync.TenantFailure, match=f"{python} does not run our program") as caught:
        asking(Box(tmp_path), monkeypatch).ask_box("delivery", survey(tmp_path), variables(python))
    assert "ansible_python_interpreter" in caught.value.fix


@pytest.mark.parametrize(
    "says",
    ["", "tenant-far-end", "tenant-far-end [1]\n", "tenant-far-end {\n", "tenant-far-end null\n", '{"good": ["a"]}\n'],
)
def test_law_8_what_is_no_answer_is_none(says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(checked_sync.TenantFailure, match="does not run our program"):
        asking(Box(tmp_path, says=says), monkeypatch).ask_box("delivery", survey(tmp_path), variables())


@pytest.mark.parametrize(
    "told",
    [
        {"failed": True},
        {"failed": True, "msg": "\x1b[2J" + "x" * 9000},
        {"failed": True, "failure": ["gate_refused"]},
        {"failed": True, "failure": {"kind": "no such kind", "what": "\x1b]0;owned\x07", "fix": {}}},
    ],
)
def test_law_8_a_failure_told_by_a_box_is_bounded_and_printable(
    told: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = f"tenant-far-end {json.dumps(told)}\n"
    with pytest.raises(checked_sync.TenantFailure) as caught:
        asking(Box(tmp_path, says=says), monkeypatch).ask_box("delivery", survey(tmp_path), variables())
    assert caught.value.kind == "config"
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 4000


def test_a_module_takes_along_what_it_imports_and_nothing_else() -> None:
    sent = far_end._sources("box_files")
    assert sorted(sent) == [
        "tenant_far_end",
        "tenant_far_end.box",
        "tenant_far_end.box.records",
        "tenant_far_end.box_files",
        "tenant_far_end.failures",
    ]
