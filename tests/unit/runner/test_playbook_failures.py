# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Why a playbook failed on a box, by the results of its tasks: a module that ran there says what the box wants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpu_tenant import exit_codes
from gpu_tenant.playbooks import Outcome, TaskResult, _failures


def outcome(result: dict[str, Any]) -> Outcome:
    failed = TaskResult(box="b1", role="harvest", task="Pull", action="checked_sync", status="failed", result=result)
    ended = Outcome("harvest", "failed", 2, Path(), ("b1",), results=[failed])
    ended.failures = list(_failures(ended, {"failures": {"b1": 1}}, "failed", ""))
    return ended


def test_a_failure_that_speaks_is_passed_on() -> None:
    said = {"kind": "budget", "what": "the cap is reached", "safe": "nothing was rented", "fix": "raise it"}
    failure = outcome({"failure": said}).as_failure()
    assert (failure.kind, failure.what, failure.safe, failure.fix) == tuple(said.values())


@pytest.mark.parametrize("kind", ["", "done", "CONFIG", 7, None, ["config"], {"kind": "config"}])
def test_a_kind_that_nobody_knows_ends_nothing_but_this_box(kind: object) -> None:
    ended = outcome({"failure": {"kind": kind, "what": "no reason"}})
    assert ended.exit_code == exit_codes.UNCLASSIFIED
    assert ended.as_failure().what == "no reason"


def test_what_a_box_says_is_one_line_of_a_terminal_and_not_endless() -> None:
    failure = outcome({"failure": {"kind": "config", "what": "\x1b[2Jgone\n\rfine " + "x" * 100_000}}).as_failure()
    assert failure.what.isprintable()
    assert "gone fine x" in failure.what
    assert len(failure.what) <= 2000
