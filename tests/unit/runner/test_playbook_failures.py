# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Why a playbook failed on a box, by the results of its tasks: a module that ran there says what the box wants."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

from gpu_tenant import exit_codes, hosts, narrate
from gpu_tenant.playbooks import Outcome, PlaybookRunner, TaskResult, _Collector, _failures
from gpu_tenant.workspace import Workspace


def outcome(result: dict[str, Any]) -> Outcome:
    failed = TaskResult(box="b1", role="harvest", task="Pull", action="checked_sync", status="failed", result=result)
    ended = Outcome("harvest", "failed", 2, Path(), ("b1",), results=[failed])
    ended.failures = list(_failures(ended, {"failures": {"b1": 1}}, "failed", ""))
    return ended


def test_a_failure_that_speaks_is_passed_on() -> None:
    said = {"kind": "budget", "what": "the cap is reached", "safe": "nothing was rented", "fix": "raise it"}
    failure = outcome({"failure": said}).as_failure()
    assert (failure.kind, failure.what, failure.safe, failure.fix) == tuple(said.values())


@pytest.mark.parametrize("purpose", ["Act", "A play of a very long name " * 40])
def test_who_finds_the_box_in_other_hands_hears_how_to_take_it_over(purpose: str) -> None:
    held = {"kind": "lease_held", "what": f"'{purpose}' is at work on it", "fix": "-e box_lease_from=45c86d0221a7"}
    [told] = narrate.sentences(outcome({"failure": held}).results[0])
    assert told.startswith(f"'{purpose[:20]}")
    assert told.endswith("; -e box_lease_from=45c86d0221a7")
    assert len(told) < 500
    [other] = narrate.sentences(outcome({"failure": {**held, "kind": "budget"}}).results[0])
    assert "box_lease_from" not in other


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


STATS = {"processed": {"b1": 1}, "failures": {"b1": 1}}


def ended(tmp_path: Path, status: str, stats: dict[str, Any]) -> Outcome:
    runner = PlaybookRunner(Workspace(tmp_path), hosts.Inventory((), "", (), ()), "demo")
    runner.interrupts.request()
    collector = _Collector(lambda event: None)
    collector.stats = stats
    said = {"failure": {"kind": "evidence_missing", "what": "a hash differs"}}
    collector.results.append(TaskResult("b1", "harvest", "Pull", "checked_sync", "failed", said))
    process = SimpleNamespace(status=status, rc=2 if stats.get("failures") else 0)
    return runner._outcome("harvest", tmp_path, process, collector, ("b1",))


def test_one_that_came_to_its_end_after_a_request_to_stop_tells_how_it_went(tmp_path: Path) -> None:
    assert ended(tmp_path, "failed", STATS).as_failure().exit_code == 21
    assert ended(tmp_path, "successful", {"processed": {"b1": 1}}).ok


@pytest.mark.parametrize("status", ["canceled", "failed", "timeout"])
def test_one_that_did_not_was_stopped(tmp_path: Path, status: str) -> None:
    with pytest.raises(TenantFailure) as caught:
        ended(tmp_path, status, {})
    assert caught.value.exit_code == 30


@pytest.mark.parametrize(("left_s", "whole_s"), [(3599.4, 3600), (60.0, 60), (0.0, 1)])
def test_a_playbook_is_not_killed_while_anything_of_its_time_is_left(
    tmp_path: Path, left_s: float, whole_s: int
) -> None:
    """Else whoever gave it all that was left of a run would find that its deadline has not passed."""
    runner = PlaybookRunner(Workspace(tmp_path), hosts.Inventory((), "", (), ()), "demo")
    assert runner._settings(tmp_path, ["b1"], False, left_s)["settings"]["job_timeout"] == whole_s
