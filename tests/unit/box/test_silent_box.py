# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Law 6 over a connection: a box that lets us in and stays silent is waited for as long as its question may take."""

from __future__ import annotations

import ast
import importlib
import math
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.action import box_login, inputs, supervisor, teardown_gate
from ansible_collections.tenant.gpu.plugins.module_utils import gate
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity
from ansible_collections.tenant.gpu.plugins.plugin_utils import box_call, box_module, controller_action
from ansible_collections.tenant.gpu.plugins.plugin_utils.silence import ANSWER_S, WORK_S, Silent

PLUGINS = Path(__file__).resolve().parents[3] / "plugins"
QUESTIONS = ("_low_level_execute_command", "_execute_module")
# It runs the modules of amazon.aws where the inventory says, which is this machine.
NOT_OF_A_BOX = {"aws_spot_instance"}
SOON_S = 0.2
IDENTITY = BoxIdentity("vision", "box1", 1, "77")


class Box:
    """Lets us in, and then says nothing for as long as it is asked. ``limits``: seconds that each question had."""

    def __init__(self) -> None:
        self.limits: list[float] = []
        self.programs: list[subprocess.Popen[bytes]] = []

    def ask(self, *_words: Any, **_options: Any) -> dict[str, Any]:
        left = signal.getitimer(signal.ITIMER_REAL)[0]
        assert left > 0, "this question has no limit"
        self.limits.append(left)
        # No test waits for the real limits.
        signal.setitimer(signal.ITIMER_REAL, min(left, SOON_S))
        self.programs.append(subprocess.Popen(["sleep", "600"]))
        self.programs[-1].wait()
        raise AssertionError("nobody ended the question")


@pytest.fixture
def box() -> Iterator[Box]:
    made = Box()
    yield made
    assert made.programs, "the box was not asked"
    for program in made.programs:
        assert program.wait(timeout=600) == -signal.SIGTERM, "an ssh to the box still waits"


def action(module: Any, box: Box) -> Any:
    made = module.ActionModule.__new__(module.ActionModule)
    made._task = SimpleNamespace(check_mode=False, async_val=0, delegate_to=None, args={})
    made._templar = SimpleNamespace(template=lambda value: value)
    made._connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="/tmp/there"), reset=lambda: None)
    made._compute_environment_string = lambda: ""
    for name in QUESTIONS:
        setattr(made, name, box.ask)
    return made


def imported(name: str) -> Any:
    return importlib.import_module(f"ansible_collections.tenant.gpu.plugins.action.{name}")


def test_what_a_box_has_begun_is_not_tidied_up_by_asking_it_again(box: Box) -> None:
    """Ansible removes the temporary folder of a task at its end, and would wait for that too."""
    asking = action(imported("held_files"), box)
    with pytest.raises(Silent) as caught:
        asking.act({"tenant_root": "/d", "run_id": "r"}, {"inventory_hostname": "box1"})
    assert (caught.value.kind, caught.value.box) == ("unreachable", "box1")
    assert asking._connection._shell.tmpdir is None


@pytest.mark.parametrize(
    ("state", "within_s"),
    [("status", ANSWER_S), ("started", ANSWER_S), ("sealed", WORK_S + 30), ("held", WORK_S + 30)],
)
def test_the_supervisor_is_waited_for_as_long_as_its_verb_takes(state: str, within_s: float, box: Box) -> None:
    names = ("pyz", "run", "run_id", "launch", "epoch", "stop_live", "retry_failed", "batch", "gpus", "nodes")
    params = {**dict.fromkeys(names), "tenant_root": "/d", "state": state, "grace_s": 30.0, "live_within_s": 60.0}
    asking = action(supervisor, box)
    with pytest.raises(Silent):
        asking.act({**params, "detach": "setsid", "detach_options": []}, {"inventory_hostname": "box1"})
    assert [math.ceil(limit) for limit in box.limits] == [within_s], "it is not asked again for its log"


@pytest.mark.parametrize("name", ["manifest", "verify_load"])
def test_what_reads_everything_has_the_time_that_the_task_gives_it(name: str, box: Box) -> None:
    with pytest.raises(Silent, match="did not answer within 90000 s"):
        action(imported(name), box).act({"tenant_root": "/d", "deadline_s": 90000.0}, {"inventory_hostname": "box1"})
    assert math.ceil(box.limits[0]) == 90000


@pytest.mark.parametrize("name", ["harvest_policy", "tracker", "node_proof_info"])
def test_a_module_is_waited_for_no_longer_and_the_failure_is_the_tasks(
    name: str, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = "action.async_status.ActionModule" if name == "node_proof_info" else "action.ActionBase"
    monkeypatch.setattr(f"ansible.plugins.{base}.run", box.ask if name == "node_proof_info" else lambda *_words: {})
    result = action(imported(name), box).run(task_vars={"inventory_hostname": "box1"})
    assert result["failed"] is True
    assert (result["failure"]["kind"], result["failure"]["box"]) == ("unreachable", "box1")


def test_the_gate_falls_back_to_the_last_reading(box: Box) -> None:
    view = gate.ProviderView("running", None, "2026-11-23T00:00:00Z")
    reading, note = action(teardown_gate, box)._read_seal(IDENTITY, "/d", view, {"inventory_hostname": "box1"})
    assert reading is None
    assert "did not answer within" in note
    assert "the last seal reading is used" in note


def test_a_login_is_tried_to_its_deadline_and_not_beyond(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    box_ask = box.ask

    def ask(*words: Any, **options: Any) -> Any:
        clock[0] += 100
        return box_ask(*words, **options)

    monkeypatch.setattr(box, "ask", ask)
    monkeypatch.setattr(box_login, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda _seconds: None))
    with pytest.raises(TenantFailure, match="then says nothing") as caught:
        action(box_login, box).act({"within_s": 150.0, "pause_s": 1.0}, {"inventory_hostname": "box1"})
    assert (caught.value.kind, caught.value.box) == ("unreachable", "box1")
    assert [math.ceil(limit) for limit in box.limits] == [150, 50]


# --- inputs -----------------------------------------------------------------------------------------------------------

INPUTS: dict[str, Any] = {
    **dict.fromkeys(("tenant_root", "pyz", "env_file", "proxy_hook"), ""),
    **dict.fromkeys(("stall_s", "tries", "connections"), 1),
    "inputs": [],
    "env": {},
    "limits": {},
    "deadline_s": 600.0,
}


def test_a_box_that_says_at_once_that_it_fetches_is_not_asked_the_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, asked = [0.0], []

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    def answer(_work: str, arguments: dict[str, Any], *_words: Any, **_options: Any) -> dict[str, Any]:
        asked.append(arguments["state"])
        assert len(asked) < 1000, "it is asked without a pause"
        clock[0] += 0.01
        return {"changed": True, "diff": {}, "inputs": {"state": "fetching"}}

    monkeypatch.setattr(inputs, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))
    asking = action(inputs, Box())
    asking.call_on_box = answer
    with pytest.raises(TenantFailure, match="did not arrive within 600 s"):
        asking.act(INPUTS, {"inventory_hostname": "box1"})
    assert asked.count("awaited") <= INPUTS["deadline_s"] / inputs.LOOK_S + 1


def test_a_box_that_waits_with_its_answer_is_asked_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, slept, states = [0.0], [], iter(["absent", "fetching", "fetching", "proven"])

    def answer(*_words: Any, **_options: Any) -> dict[str, Any]:
        clock[0] += inputs.LOOK_S + 1
        return {"changed": True, "diff": {}, "inputs": {"state": next(states), "set": "s"}}

    monkeypatch.setattr(inputs, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=slept.append))
    asking = action(inputs, Box())
    asking.call_on_box = answer
    assert asking.act(INPUTS, {"inventory_hostname": "box1"})["inputs"]["state"] == "proven"
    assert not slept


def test_a_box_that_falls_silent_while_it_fetches_is_unreachable(box: Box) -> None:
    asking = action(inputs, box)
    asking._box = "box1"
    seen = {"changed": True, "diff": {}, "inputs": {"state": "fetching", "bytes": 3, "bytes_total": 9}}
    with pytest.raises(TenantFailure, match="while it fetches") as caught:
        asking._until_ended(seen, {}, 600.0, {"inventory_hostname": "box1"})
    assert caught.value.kind == "unreachable"
    assert "3 of 9 bytes" in caught.value.safe


# --- none is forgotten ------------------------------------------------------------------------------------------------


def unlimited(tree: ast.AST) -> list[int]:
    """Lines that ask a box outside of ``answered_within``."""
    limited = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.With) and any("answered_within(" in ast.unparse(item) for item in node.items)
        for inner in ast.walk(node)
    }
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in QUESTIONS
        and id(node) not in limited
    ]


@pytest.mark.parametrize(
    "path",
    [
        *(path for path in sorted((PLUGINS / "action").glob("*.py")) if path.stem not in NOT_OF_A_BOX),
        *(Path(str(module.__file__)) for module in (box_call, box_module, controller_action)),
    ],
    ids=lambda path: path.stem,
)
def test_every_question_to_a_box_has_a_limit(path: Path) -> None:
    assert unlimited(ast.parse(path.read_text())) == []
