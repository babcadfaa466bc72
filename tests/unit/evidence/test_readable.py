# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Law 8: what a box says, without what a terminal would obey."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible_collections.tenant.gpu.plugins.action.supervisor import waits
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.readable import readable, readable_parts
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.tenant.gpu.plugins.plugin_utils.readable_action import errors_are_readable
from ansible_collections.tenant.gpu.plugins.plugin_utils.strangers_answer import OddAnswer, believed, told_readably
from hypothesis import given
from hypothesis import strategies as st

ODD = "\x1b[2Ja\n\tb\x9b2J\u202e\x07\x7f\udc9b"
OBEYED = {*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), "\u202e", "\u2066"} - {"\t", "\n"}


@given(st.text())
def test_nothing_is_left_that_a_terminal_obeys(text: str) -> None:
    assert not set(readable(text)) & OBEYED
    assert readable(readable(text)) == readable(text)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("ä 字 \u201cq\u201d \u200d\n\tx", "ä 字 \u201cq\u201d \u200d\n\tx"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("a\r\nb\rc\x1b", "a\nb\nc"),
        # What a box leaves open hides no word of ours that stands behind it.
        ("\x1b]0;x is refused", "]0;x is refused"),
        (ODD, "a\n\tb2J"),
    ],
)
def test_letters_tabs_and_line_ends_stay(text: str, left: str) -> None:
    assert readable(text) == left


def test_every_text_of_a_value_is_reached() -> None:
    value = {ODD: [ODD, {"a": (ODD, 1, None, True)}]}
    plain = readable(ODD)
    assert readable_parts(value) == {plain: [plain, {"a": [plain, 1, None, True]}]}


def test_a_failure_is_told_without_it() -> None:
    failure = TenantFailure("config", f"x {ODD}", f"box{ODD}", safe=ODD, fix=ODD)
    for told in (str(failure), *failure.as_result()["failure"].values(), failure.as_result()["msg"]):
        assert not set(told) & OBEYED
    assert "a\n\tb" in failure.as_result()["failure"]["what"]


def test_what_a_module_warns_of_is_not_believed() -> None:
    told = {"msg": ODD, "warnings": [ODD], "deprecations": [{"msg": ODD}], "exception": ODD, "diff": {"before": ODD}}
    assert believed(told) == {"msg": readable(ODD), "diff": {"before": readable(ODD)}}


def test_a_result_without_a_bottom_is_no_traceback() -> None:
    deep: Any = []
    for _level in range(100_000):
        deep = [deep]
    with pytest.raises(OddAnswer) as caught:
        told_readably({"deep": deep}, "box1")
    assert caught.value.box == "box1"


def test_what_a_run_waits_for_is_one_line() -> None:
    told = {"supervisor": {"runs": [{"run_id": "r", "waits_for": f"{ODD}\nRun r is done"}]}}
    assert waits(told) == ["Run r waits: a b2J Run r is done."]


@pytest.mark.parametrize("kind", [AnsibleError, AnsibleConnectionFailure])
def test_what_an_sshd_says_goes_the_same_way(kind: type[AnsibleError]) -> None:
    with pytest.raises(kind) as caught, errors_are_readable():
        raise kind(f"no way: {ODD}")
    assert str(caught.value) == f"no way: {readable(ODD)}"


@pytest.mark.parametrize("speaks", [True, False])
def test_our_own_words_stay_to_the_letter(speaks: bool) -> None:
    """A command of a run spec may hold an escape: it is hashed, and run as it stands."""

    class Action(ControllerAction):
        A_BOX_SPEAKS = speaks

    made = Action.__new__(Action)
    shown = made._shown({"command": ODD, "diff": {"before": ODD}}, "box1")
    assert shown == {"command": readable(ODD) if speaks else ODD, "diff": {"before": readable(ODD)}}
    assert made._shown({"failed": True, "log_tail": [ODD]}, "box1")["log_tail"] == [readable(ODD)]


def test_of_a_modules_answer_ansible_reads_what_is_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    monkeypatch.setattr("ansible.plugins.action.display.warning", heard.append)
    made = ControllerAction.__new__(ControllerAction)
    answer = json.dumps({"changed": False, "msg": ODD, "warnings": [ODD], "deprecations": [{"msg": ODD}]})
    found = _result(made._parse_returned_data({"stdout": f"{ODD}\n{answer}\n{ODD}\n", "stderr": ""}, "legacy"))
    assert (found["changed"], found["msg"], heard) == (False, readable(ODD), [])
    assert not {"warnings", "deprecations"} & found.keys()


def test_what_is_no_answer_is_readable_too() -> None:
    made = ControllerAction.__new__(ControllerAction)
    made._used_interpreter = None
    found = _result(made._parse_returned_data({"stdout": ODD, "stderr": ODD, "rc": 1}, "legacy"))
    assert (found["module_stdout"], found["module_stderr"]) == (readable(ODD), readable(ODD))


def _result(found: Any) -> dict[str, Any]:
    """``ansible-core`` 2.19 answers with the result itself, 2.21 with an object that holds it."""
    return dict(found if isinstance(found, dict) else found.as_result_dict())
