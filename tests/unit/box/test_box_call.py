# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A function of ours on the box, by a real shell and real interpreters: what comes back, and what does not."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import box_files, failures
from ansible_collections.tenant.gpu.plugins.plugin_utils import box_call
from box_pythons import pythons

PLUGINS = Path(__file__).resolve().parents[3] / "plugins"
PACKAGE = "ansible_collections.tenant.gpu.plugins.module_utils"
OLDEST = next((Path(path) for path in pythons() if "/3.8" in path), Path("/nonexistent/3.8/bin/python"))
ACTIONS = [
    importlib.import_module(f"ansible_collections.tenant.gpu.plugins.action.{path.stem}").ActionModule
    for path in (PLUGINS / "action").glob("*.py")
    if "(BoxCall)" in path.read_text()
]
WORKS = sorted({work for action in ACTIONS for work in action.WORKS})


class Box(box_call.BoxCall):
    """An action whose box is a shell here."""

    def __init__(self, folder: Path, check_mode: bool = False, environment: str = "", rc: int | None = None) -> None:
        self._task: Any = SimpleNamespace(check_mode=check_mode, delegate_to=None)
        self._templar: Any = SimpleNamespace(template=lambda value: value)
        self.folder, self.environment, self.rc = folder, environment, rc
        self.noise = ""

    def _compute_environment_string(self, raw_environment_out: Any = None) -> str:
        return self.environment

    def _low_level_execute_command(self, cmd: str, in_data: bytes, executable: str) -> dict[str, Any]:
        if self.rc is not None:
            return {"rc": self.rc, "stdout": "", "stderr": "kex_exchange_identification: gone"}
        done = subprocess.run([executable, "-c", cmd], input=in_data, capture_output=True, cwd=self.folder, check=False)
        return {"rc": done.returncode, "stdout": self.noise + done.stdout.decode(), "stderr": done.stderr.decode()}


def variables(python: str = sys.executable) -> dict[str, Any]:
    return {"ansible_python_interpreter": python, "inventory_hostname": "box1"}


def given(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Let ``odd.work`` be this text."""
    root = os.path.dirname(os.path.abspath(failures.__file__))
    found = box_call.sources(f"{PACKAGE}.failures", root)
    packed = zlib.compress(json.dumps({**found, f"{PACKAGE}.odd": text}).encode())
    monkeypatch.setattr(box_call, "packed", lambda work: packed)


def write(path: Path) -> dict[str, Any]:
    content = b"hello\n"
    file = {"path": str(path), "mode": "0600", "sha256": hashlib.sha256(content).hexdigest()}
    return {"folders": [], "files": [file], "contents": {str(path): box_files.packed(content)}}


def test_what_the_function_says_comes_back(tmp_path: Path) -> None:
    answer = Box(tmp_path).call_on_box("box_files.answer", write(tmp_path / "hello"), variables())
    assert (answer["changed"], answer["wanting"]) == (True, [])
    assert (tmp_path / "hello").read_text() == "hello\n"


def test_a_check_run_is_told_that_it_is_one(tmp_path: Path) -> None:
    answer = Box(tmp_path, check_mode=True).call_on_box("box_files.answer", write(tmp_path / "hello"), variables())
    assert answer["changed"]
    assert not (tmp_path / "hello").exists()


def test_a_refusal_comes_back_as_the_failure_that_it_is(tmp_path: Path) -> None:
    order = {"op": "survey", "root": str(tmp_path), "within": str(tmp_path / "elsewhere"), "files": []}
    with pytest.raises(box_call.RefusedOnBox) as caught:
        Box(tmp_path).call_on_box("delivery.answer", order, variables())
    assert (caught.value.kind, caught.value.box) == ("config", "box1")
    assert str(tmp_path) in caught.value.what
    assert caught.value.safe == "Nothing was put in its place"


@pytest.mark.skipif(not OLDEST.exists(), reason="no Python 3.8 here")
@pytest.mark.parametrize("work", WORKS)
def test_whatever_is_called_needs_no_more_than_the_oldest_python(tmp_path: Path, work: str) -> None:
    module, _dot, function = work.partition(".")
    assert function in vars(__import__(f"{PACKAGE}.{module}", fromlist=["*"]))
    with pytest.raises(box_call.NoAnswer, match="has no attribute 'nothing'"):
        Box(tmp_path).call_on_box(f"{module}.nothing", {}, variables(str(OLDEST)))


def test_all_that_is_called_was_found() -> None:
    told = {"box_files.answer", "delivery.answer", "inputs_task.act", "load_task.verify"}
    told |= {"run_manifest_task.take", "folder_manifest_task.take", "object_upload.answer", "probe_gather.look"}
    assert told <= set(WORKS)


def test_nothing_of_ansible_goes_to_the_box() -> None:
    root = os.path.dirname(os.path.abspath(failures.__file__))
    for work in WORKS:
        for name, text in box_call.sources(f"{PACKAGE}.{work.partition('.')[0]}", root).items():
            assert not re.search(r"^\s*(from|import) ansible\.", text or "", re.MULTILINE), name


@pytest.mark.parametrize("noise", ["Welcome to the box!\n", "no end of line", 'tenant-gpu-answer:{"answer": {}}\n'])
def test_what_a_login_prints_is_no_answer(tmp_path: Path, noise: str) -> None:
    box = Box(tmp_path)
    box.noise = noise
    assert box.call_on_box("box_files.answer", write(tmp_path / "hello"), variables())["changed"]


def test_what_the_function_prints_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given(
        monkeypatch,
        "import os, subprocess\n"
        "def work(arguments, check_mode):\n"
        "    print('tenant-gpu-answer:1', flush=True)\n"
        "    subprocess.run(['echo', 'tenant-gpu-answer:{}'])\n"
        "    return {'seen': arguments['word']}\n",
    )
    assert Box(tmp_path).call_on_box("odd.work", {"word": "größer \udce9"}, variables()) == {"seen": "größer \udce9"}


def test_a_crash_names_its_last_words_and_the_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, "def work(arguments, check_mode):\n    raise ValueError('odd \\x1b[31m number')\n")
    with pytest.raises(box_call.NoAnswer) as caught:
        Box(tmp_path).call_on_box("odd.work", {}, variables())
    assert (caught.value.kind, caught.value.status, caught.value.lost, caught.value.box) == ("config", 1, False, "box1")
    assert "ValueError: odd" in caught.value.what
    assert "\x1b" not in caught.value.what


@pytest.mark.parametrize(
    "said", ["[]", "null", "{", '{"answer": 3}', '{"else": {}}', '{"answer": {}, "failure": {}}', "[" * 200_000]
)
def test_an_answer_of_another_form_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    given(
        monkeypatch,
        "import os\ndef work(arguments, check_mode):\n    with open(3, 'wb', closefd=False) as answers:\n"
        f"        answers.write(b'tenant-gpu-answer:' + {said!r}.encode())\n"
        "    os._exit(0)\n",
    )
    with pytest.raises(box_call.NoAnswer):
        Box(tmp_path).call_on_box("odd.work", {}, variables())


def test_a_killed_call_names_its_signal(tmp_path: Path) -> None:
    with pytest.raises(box_call.NoAnswer) as caught:
        Box(tmp_path, rc=137).call_on_box("load_task.verify", {}, variables())
    assert (caught.value.kind, caught.value.lost) == ("config", False)
    assert "signal 9 ended it; look at the memory" in caught.value.fix


def test_a_python_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(box_call.NoAnswer) as caught:
        Box(tmp_path).call_on_box("box_files.answer", write(tmp_path / "hello"), variables("/opt/none/python"))
    assert "/opt/none/python on the box ended with 127" in caught.value.what
    assert "ansible_python_interpreter" in caught.value.fix


@pytest.mark.skipif(not OLDEST.exists(), reason="no Python 2 here")
@pytest.mark.parametrize("version", ["2.7.18", "3.6.15", "3.7.16"])
def test_a_python_that_is_too_old_says_so(tmp_path: Path, version: str) -> None:
    python = str(OLDEST.parents[2] / version / "bin/python")
    with pytest.raises(box_call.NoAnswer, match=f"3.8 or newer is needed, this is {version}|invalid|Unknown option"):
        Box(tmp_path).call_on_box("load_task.verify", {}, variables(python), site=True)


@pytest.mark.parametrize("status", [255, -9])
def test_a_lost_connection_is_no_fault_of_the_box(tmp_path: Path, status: int) -> None:
    with pytest.raises(box_call.NoAnswer) as caught:
        Box(tmp_path, rc=status).call_on_box("box_files.answer", {}, variables())
    assert (caught.value.lost, caught.value.kind) == (True, "unreachable")


def test_what_lies_where_the_login_ends_up_is_no_library(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('not ours')\n")
    box = Box(tmp_path)
    assert box.call_on_box("box_files.answer", write(tmp_path / "hello"), variables())["changed"]
    assert box.call_on_box("box_files.answer", write(tmp_path / "hello"), variables(), site=True)["wanting"] == []


def test_the_environment_of_the_task_is_that_of_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, "import os\ndef work(arguments, check_mode):\n    return {'seen': os.environ['ENDPOINT']}\n")
    box = Box(tmp_path, environment="ENDPOINT='a b' ")
    assert box.call_on_box("odd.work", {}, variables()) == {"seen": "a b"}


@pytest.mark.parametrize(
    ("given_variables", "delegate_to", "python"),
    [
        ({"ansible_python_interpreter": "/opt/py"}, None, "/opt/py"),
        ({"ansible_python_interpreter": "auto_silent"}, None, "python3"),
        ({"ansible_facts": {"discovered_interpreter_python": "/usr/bin/python3.9"}}, None, "/usr/bin/python3.9"),
        ({"ansible_python_interpreter": "/opt/py"}, "other", "/opt/py"),
        (
            {
                "ansible_python_interpreter": "/opt/py",
                "ansible_delegated_vars": {"other": {"ansible_python_interpreter": "/opt/other"}},
            },
            "other",
            "/opt/other",
        ),
    ],
)
def test_the_interpreter_is_that_of_modules(
    tmp_path: Path, given_variables: dict[str, Any], delegate_to: str | None, python: str
) -> None:
    box = Box(tmp_path)
    box._task.delegate_to = delegate_to
    assert box.box_python(given_variables) == python


def test_the_sources_are_made_when_the_action_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(box_call, "packed", made.append)

    class Asking(box_call.BoxCall):
        WORKS = ("box_files.answer", "delivery.answer")

    assert made == list(Asking.WORKS)


@pytest.mark.parametrize(
    "told",
    [
        {"failure": 3},
        {"failure": {"kind": "no such kind", "what": "\x1b]0;owned\x07", "fix": {}}},
        {"failure": {"kind": ["config"], "what": "x" * 9000}},
        {"msg": "\x1b[2J", "failure": None},
    ],
)
def test_law_8_a_failure_told_by_a_box_is_bounded_and_printable(told: dict[str, Any]) -> None:
    failure = box_call.RefusedOnBox(told, "box1")
    assert (failure.kind, failure.box) == ("config", "box1")
    assert str(failure).isprintable()
    assert len(str(failure)) < 4000


def test_what_came_with_a_failure_stays_with_it(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    files = [{"path": "a.json", "loader": "json"}]
    order = {"root": str(tmp_path), "files": files, "manifest": None, "level": "structure", "expect": {}}
    with pytest.raises(box_call.RefusedOnBox) as caught:
        Box(tmp_path).call_on_box("load_task.verify", {**order, "missing_library": "fail"}, variables(), site=True)
    result = caught.value.as_result()
    assert (result["failure"]["kind"], [check["ok"] for check in result["checks"]]) == ("evidence_missing", [False])
