# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A box's JSON is refused by what it would cost, before anything is made of it."""

from __future__ import annotations

import json
import subprocess
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.action import secrets
from ansible_collections.tenant.gpu.plugins.module_utils import bounded_json
from ansible_collections.tenant.gpu.plugins.module_utils.bounded_json import MOST_VALUES, read_json
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.supervisor_client import parse

from gpu_tenant.box_ssh import MOST_ANSWER_BYTES
from gpu_tenant.observation import Observation
from gpu_tenant.supervisor_answer import read_answer


def dense(unit: str, most_bytes: int = MOST_ANSWER_BYTES) -> str:
    """The longest answer of a box that is a list of these."""
    return f"[{','.join([unit] * ((most_bytes - 2) // (len(unit) + 1)))}]"


DENSE = [dense("[]"), dense("{}"), dense("0"), "[" * 500_000 + "]" * 500_000, '{"a":' * 400_000 + "0" + "}" * 400_000]


@pytest.mark.parametrize("text", DENSE, ids=["lists", "objects", "numbers", "deep", "deep-objects"])
def test_more_values_than_any_answer_are_not_read(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_json.json, "loads", lambda _text: pytest.fail("it was read"))
    for told in (text, text.encode()):
        with pytest.raises(ValueError, match="no answer of ours"):
            read_json(told)


def test_what_is_refused_costs_next_to_nothing() -> None:
    answer = dense("[]").encode()
    seen = Observation("box-1", "2026-11-23T20:00:00Z", "running")
    tracemalloc.start()
    found = read_answer(seen, subprocess.CompletedProcess([], 0, answer, b""), "digits")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.contact == "unreachable"
    assert peak < len(answer) / 8, "reading it would take some forty times its length"


def test_the_largest_status_of_ours_is_read() -> None:
    cell = {**dict.fromkeys(map(str, range(10)), 1.5), "cell": "a", "artifacts": []}
    status = {"runs": [{"run_id": "digits", "cells": [cell] * 5000}]}
    assert read_json(json.dumps(status)) == status
    most = [0] * MOST_VALUES
    assert read_json(json.dumps(most)) == most


def refused_by_client(text: str) -> None:
    assert parse(text) is None


def refused_by_secrets(text: str) -> None:
    made: Any = secrets.ActionModule.__new__(secrets.ActionModule)
    made._task = type("Task", (), {"check_mode": False})
    made._box = "box-1"
    made._low_level_execute_command = lambda *_words, **_options: {"rc": 0, "stdout": text, "stderr": ""}
    with pytest.raises(TenantFailure, match="no answer"):
        made._ask({"python": "python3", "pyz": "/p", "tenant_root": "/r", "secrets": []}, {})


@pytest.mark.parametrize("refused", [refused_by_client, refused_by_secrets])
def test_so_it_is_wherever_a_supervisor_answers(refused: Callable[[str], None]) -> None:
    refused('{"a": ' + dense("[]") + "}")
