# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Law 8: what a box answers never becomes a result of which Ansible takes facts, machines or connections."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.plugin_utils import strangers_answer
from ansible_collections.tenant.gpu.plugins.plugin_utils.box_call import BoxCall
from ansible_collections.tenant.gpu.plugins.plugin_utils.box_module import BoxModule
from ansible_collections.tenant.gpu.plugins.plugin_utils.strangers_answer import OddAnswer, believed, fields

ROOT = Path(__file__).resolve().parents[3]
FORGED: dict[str, Any] = {
    "ansible_facts": {"run_spec": {"code_dir": "/home/me"}, "box_mirrors": {"chosen": {}}},
    "add_host": {"host_name": "vast-a", "host_vars": {"ansible_connection": "local"}},
    "add_group": "vast",
    "ansible_stats": {"data": {}},
    "skipped": True,
}
# Shapes that each action's far end answers in.
ANSWERS: dict[str, dict[str, Any]] = {
    "manifest": {"manifest": {"files": []}, "changed": False, "diff": {}, "root": "/d", "not_pulled": {}},
    "verify_load": {"checks": [], "why_not_loaded": ""},
    "inputs": {"changed": False, "inputs": {"state": "proven"}, "diff": {}},
    "box_files": {"changed": False, "differing": [], "wanting": []},
    "held_files": {"changed": False},
}
PARAMS: dict[str, dict[str, Any]] = {
    "inputs": {
        "env": {},
        "limits": {},
        **dict.fromkeys(("tenant_root", "pyz", "env_file", "proxy_hook"), ""),
        **dict.fromkeys(("deadline_s", "stall_s", "tries", "connections"), 1),
        "inputs": [],
    },
    "box_files": {"files": [], "folders": [], "folder_mode": "0700", "send": "differing"},
    "held_files": {"run_id": "digits", "tenant_root": "/d"},
    "manifest": {"tenant_root": "/d", "deadline_s": 60.0},
    "verify_load": {"deadline_s": 60.0},
}
# These judge what they are answered, and tell what they made of it.
JUDGES = {"checked_sync", "box_probe"}


def action(name: str) -> Any:
    module = importlib.import_module(f"ansible_collections.tenant.gpu.plugins.action.{name}")
    made = module.ActionModule.__new__(module.ActionModule)
    made._task = SimpleNamespace(check_mode=False, async_val=0, delegate_to=None)
    return made


def names(base: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "plugins/action").glob("*.py") if f"({base})" in path.read_text())


def test_every_action_that_calls_the_box_is_known_here() -> None:
    assert set(names("BoxCall")) == {*ANSWERS, *JUDGES}


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_a_result_has_the_fields_of_its_module_and_no_others(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoxCall, "call_on_box", lambda *_args, **_options: {**ANSWERS[name], **FORGED})
    result = action(name).act(PARAMS.get(name, {}), {"inventory_hostname": "box1"})
    assert not result.keys() & FORGED.keys()
    assert not result.get("changed")


@pytest.mark.parametrize("name", sorted(ANSWERS))
@pytest.mark.parametrize("odd", [None, "x", 3, [[]]])
def test_a_field_of_another_form_is_a_failure_that_names_the_box(
    name: str, odd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for field in ANSWERS[name].keys() - {"changed", "root", "not_pulled", "why_not_loaded"}:
        if field in ("checks", "wanting") and isinstance(odd, list):
            continue
        monkeypatch.setattr(
            BoxCall, "call_on_box", lambda *_args, field=field, **_options: {**ANSWERS[name], field: odd}
        )
        with pytest.raises(OddAnswer) as caught:
            action(name).act(PARAMS.get(name, {}), {"inventory_hostname": "box1"})
        assert (caught.value.kind, caught.value.box) == ("unreachable", "box1")


@pytest.mark.parametrize("state", ["read", "absent"])
@pytest.mark.parametrize("failed", [True, False], ids=["failed", "done"])
@pytest.mark.parametrize("check_mode", [True, False], ids=["check", "real"])
def test_a_copy_of_a_box_at_rest_tells_no_facts(
    state: str, failed: bool, check_mode: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its task is delegated to the box that has the copy, and its facts would be those of the box at rest."""
    made = action("resting_copy")
    made._task.check_mode = check_mode
    told = {"changed": True, "files": 1, "bytes": 2, "listed": [{"path": "a", "bytes": 2}], "failed": failed, **FORGED}
    monkeypatch.setattr(made, "_execute_module", lambda **_options: dict(told))
    monkeypatch.setattr(made, "_not_home", list)
    monkeypatch.setattr("ansible_collections.tenant.gpu.plugins.module_utils.resting_copy.read_record", forged_record)
    identity = {"project": "p", "box": "b1", "generation": 1, "provider_id": "7", "state_dir": str(tmp_path)}
    try:
        result = made.act({**identity, "tenant_root": "/copy", "state": state}, {})
    except TenantFailure:
        return
    assert not result.keys() & strangers_answer.ACTED_ON


def forged_record(*_args: Any) -> dict[str, Any]:
    return {"asked_at": "2026-01-01T00:00:00Z"}


def test_a_deleted_copy_is_told_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = action("resting_copy")
    told = {"changed": True, "files": 1, "bytes": 2, "listed": [{"path": "a", "bytes": 2, "x": 1}], "other": 1}
    monkeypatch.setattr(made, "_execute_module", lambda **_options: {**told, **FORGED})
    monkeypatch.setattr(made, "_not_home", list)
    identity = {"project": "p", "box": "b1", "generation": 1, "provider_id": "7", "state_dir": str(tmp_path)}
    params = {**identity, "tenant_root": "/copy", "state": "absent"}
    result = made.act(params, {})
    assert result.keys() == {"changed", "files", "bytes", "listed", "not_home", "diff"}
    assert result["listed"] == [{"path": "a", "bytes": 2}]
    told["listed"] = ["a"]
    with pytest.raises(OddAnswer):
        made.act(params, {})


def test_a_reader_that_fails_tells_no_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = action("copy_reading")
    monkeypatch.setattr(made, "_execute_module", lambda **_options: {"failed": True, "msg": "no", **FORGED})
    monkeypatch.setattr(made, "_manifest", lambda _params: SimpleNamespace(files=[]))
    identity = {"project": "p", "box": "b1", "generation": 1, "provider_id": "7", "state_dir": str(tmp_path)}
    result = made.act({**identity, "uri": "", "root": "/x", "manifest": "m"}, {})
    assert (result["failed"], result["msg"]) == (True, "no")
    assert not result.keys() & strangers_answer.ACTED_ON


ABOUT = {"project": "p", "box": "b1", "generation": 1, "provider_id": "7"}
SEAL = {**ABOUT, "runs": []}
RESTED = {
    "live_cells": [],
    "unlisted_runs": [],
    "problems": [],
    "checkpoints": {},
    "seal": SEAL,
    "index": ABOUT,
}
ODD_COPIES: list[dict[str, Any]] = [
    {"index": [1]},
    {"seal": "x"},
    {"seal": {**SEAL, "runs": [5]}},
    {"seal": {**SEAL, "runs": [{}]}},
    {"seal": {**SEAL, "runs": [{"run_id": "../up"}]}},
    {"seal": {**SEAL, "runs": 3}},
    {"problems": 5},
]


def kept(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("odd", ODD_COPIES, ids=str)
def test_a_copy_whose_records_have_another_form_is_an_odd_answer(
    odd: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = action("resting_copy")
    monkeypatch.setattr(made, "_execute_module", lambda **_options: {**RESTED, **odd})
    monkeypatch.setattr("ansible_collections.tenant.gpu.plugins.module_utils.resting_copy.read_record", forged_record)
    with pytest.raises(OddAnswer) as caught:
        made.act({**ABOUT, "state_dir": str(tmp_path), "tenant_root": "/copy", "state": "read"}, {})
    assert caught.value.box == "b1"
    assert not kept(tmp_path)


def test_an_older_reading_with_runs_of_another_form_deletes_no_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, store = action("resting_copy"), StateStore(str(tmp_path))
    reading = {**ABOUT, "at_rest": {"dest_path": "/copy"}, "seal": {**SEAL, "runs": [5]}}
    records.write_record(store.seal_path("p", "b1", 1), "seal-reading", reading)
    monkeypatch.setattr(made, "_execute_module", pytest.fail)
    monkeypatch.setattr(
        "ansible_collections.tenant.gpu.plugins.module_utils.gate.gather",
        lambda *_words, reading, **_more: SimpleNamespace(reading=reading, receipts={}),
    )
    with pytest.raises(OddAnswer):
        made.act({**ABOUT, "state_dir": str(tmp_path), "tenant_root": "/copy", "state": "absent"}, {})


@pytest.mark.parametrize("odd", [{"boot_id": float("nan")}, {"boot_id": {}}, {"device": "x"}, {"device": float("inf")}])
def test_a_reader_that_is_of_another_form_leaves_no_reading(
    odd: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = action("copy_reading")
    monkeypatch.setattr(
        made, "_execute_module", lambda **_options: {"problems": [], "boot_id": "b", "device": 1, **odd}
    )
    manifest = SimpleNamespace(files=[], project="p", run_id="r", digest="0" * 64)
    monkeypatch.setattr(made, "_manifest", lambda _params: manifest)
    with pytest.raises(OddAnswer) as caught:
        made.act({**ABOUT, "state_dir": str(tmp_path), "uri": "mount://a.b/c", "root": "/x", "manifest": "m"}, {})
    assert caught.value.box == "b1"
    assert not kept(tmp_path)


@pytest.mark.parametrize("odd", [{"log_tail": 5}, {"log_tail": True}, {"loss": float("nan")}, {"more": [float("inf")]}])
def test_a_drill_of_another_form_leaves_no_record(
    odd: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, verdict = (
        action("resume_drill"),
        {**ABOUT, "run_id": "r", "passed": False, "reason": "no_losses", "why": "so"},
    )
    monkeypatch.setattr(made, "_execute_module", lambda **_options: {"changed": True, "drill": {**verdict, **odd}})
    with pytest.raises(OddAnswer) as caught:
        made.act({**ABOUT, "state_dir": str(tmp_path), "run_id": "r", "deadline_s": 60.0}, {})
    assert caught.value.box == "b1"
    assert not kept(tmp_path)


def test_no_record_holds_a_number_that_json_does_not_have(tmp_path: Path) -> None:
    for number in (float("nan"), float("inf")):
        with pytest.raises(records.RecordError, match="drill"):
            records.write_record(str(tmp_path / "drill.json"), "drill", {"deep": [{"loss": number}]})
    assert not kept(tmp_path)


@pytest.mark.parametrize("name", names("BoxModule"))
def test_a_module_on_the_box_tells_no_facts_but_its_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"changed": True, "seen": 1, **FORGED}
    made = action(name)
    monkeypatch.setattr(made, "_execute_module", lambda **_options: told)
    monkeypatch.setattr("ansible.plugins.action.ActionBase.run", lambda *_args: {})
    result = made.run(task_vars={})
    assert (result["changed"], result["seen"]) == (True, 1)
    assert set(result.get("ansible_facts", {})) == set(made.FACTS)
    assert "add_host" not in result


def test_whatever_runs_on_a_box_by_ansible_s_own_way_is_cut_to_what_is_believed() -> None:
    for path in (ROOT / "plugins/action").glob("*.py"):
        text = path.read_text()
        # Their answers are read field by field, or come from this machine.
        if "_execute_module(" in text and path.stem not in (
            "aws_spot_instance",
            "teardown_gate",
        ):
            assert re.search(r"believed\(\s*self\._execute_module", text), path.stem


def test_only_named_fields_of_the_right_type() -> None:
    answer = {"a": "x", "b": 1, "c": True, "other": 1}
    assert fields(answer, "box1", {"a": str}, {"b": int, "d": dict}) == {"a": "x", "b": 1}
    for needed in ({"a": int}, {"c": int}, {"b": bool}, {"d": str}):
        with pytest.raises(OddAnswer):
            fields(answer, "box1", needed)
    with pytest.raises(OddAnswer):
        fields(answer, "box1", {}, {"a": list})


def test_facts_are_taken_by_name() -> None:
    assert believed(FORGED) == {"skipped": True}
    assert believed(FORGED, ("box_mirrors",))["ansible_facts"] == {"box_mirrors": {"chosen": {}}}
    assert believed({"ansible_facts": "text"}, ("box_mirrors",)) == {}


@pytest.mark.parametrize("error", [KeyError("a"), TypeError("b"), ValueError("\x1b[2J"), RecursionError()])
def test_a_stumble_over_an_answer_is_no_traceback(error: Exception) -> None:
    with pytest.raises(OddAnswer) as caught, strangers_answer.form_is_checked("box1"):
        raise error
    assert caught.value.box == "box1"
    assert str(caught.value).isprintable()


def test_a_failure_that_speaks_already_stays_what_it_is() -> None:
    with pytest.raises(TenantFailure, match="spoken") as caught, strangers_answer.form_is_checked("box1"):
        raise TenantFailure("config", "spoken", "box1", safe="", fix="")
    assert not isinstance(caught.value, OddAnswer)


def test_what_runs_there_says_so() -> None:
    assert set(names("BoxModule")) == {"harvest_policy", "mirror_select", "node_proof", "reboot_hook", "tracker"}
    assert issubclass(type(action("tracker")), BoxModule)
