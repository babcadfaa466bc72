# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How often ``box_files`` asks a box: once where nothing differs, twice where something does, once if told to send."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.action.box_files import ActionModule
from ansible_collections.tenant.gpu.plugins.module_utils import box_files


def put(box: Path, monkeypatch: pytest.MonkeyPatch, check_mode: bool = False, **more: Any) -> tuple[Any, list[int]]:
    """The answer, and how many contents came with each question."""
    asked: list[int] = []

    def far_end(work: str, arguments: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        assert work == "box_files.answer"
        asked.append(len(arguments["contents"]))
        return box_files.answer(arguments, check_mode)

    files = [{"path": str(box / name), "content": f"{name}\n"} for name in ("one", "two")]
    arguments = {"folders": [str(box)], "files": files, **more}
    task = SimpleNamespace(args=arguments, check_mode=check_mode, async_val=0, action="tenant.gpu.box_files")
    reached = SimpleNamespace(_shell=SimpleNamespace(tmpdir="/tmp/there"))
    action = ActionModule(task, reached, SimpleNamespace(), None, None, None)
    monkeypatch.setattr(action, "call_on_box", far_end)
    return action.run(task_vars={}), asked


def test_what_differs_is_asked_for_and_then_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, asked = put(tmp_path / "box", monkeypatch)
    assert (answer["changed"], asked) == (True, [0, 2])
    answer, asked = put(tmp_path / "box", monkeypatch)
    assert (answer["changed"], asked) == (False, [0])


def test_a_box_that_has_none_of_it_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, _asked = put(tmp_path / "slow", monkeypatch)
    answer, asked = put(tmp_path / "box", monkeypatch, send="all")
    assert asked == [2]
    assert (tmp_path / "box/two").read_text() == "two\n"
    assert answer["changed"]
    assert [path.removeprefix(str(tmp_path / "box")) for path in answer["paths"]] == [
        path.removeprefix(str(tmp_path / "slow")) for path in slow["paths"]
    ]
    assert sorted(map(told, answer["diff"])) == sorted(map(told, slow["diff"]))


def told(diff: dict[str, Any]) -> tuple[str, str]:
    return str(diff["before"]), str(diff["after"])


def test_what_is_there_already_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "box", monkeypatch)
    before = (tmp_path / "box/one").stat().st_ino
    answer, asked = put(tmp_path / "box", monkeypatch, send="all")
    assert (answer["changed"], asked) == (False, [2])
    assert (tmp_path / "box/one").stat().st_ino == before


def test_a_check_run_sends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, asked = put(tmp_path / "box", monkeypatch, check_mode=True, send="all")
    assert (answer["changed"], asked) == (True, [0])
    assert not (tmp_path / "box").exists()
