# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the runner makes of a supervisor that is a Slurm job: it waits, however long, and hands nothing in twice."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.box import records

from gpu_tenant import fleet, supervisor_answer, verdicts
from gpu_tenant.decide import GIVE_UP, HARVEST_FAILED, RESTART, WAIT, Situation, Tried, decide
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation
from gpu_tenant.sight import Sight

PROFILES = Path(__file__).parents[3] / "inventories/profiles/group_vars"
LATER_S = 7 * 86400.0


def answer(run_state: str, waits_for: str = "", blocked_by: tuple[str, ...] = (), **job: Any) -> Observation:
    cell = {"cell": "c", "attempt": 1, "state": run_state, "liveness": "none", "step": 3}
    run = {"run_id": "r", "state": run_state, "cells": [cell], "waits_for": waits_for, "blocked_by": list(blocked_by)}
    said = {"runs": [run], "batch": {"job": "12", "why": "Slurm job 12", **job}}
    done = subprocess.CompletedProcess([], 0, json.dumps(said).encode(), b"")
    return supervisor_answer.read_answer(Observation("b1", records.utc_now(), "running"), done, "r")


def after(seen: Observation, seconds: float) -> verdicts.Verdict:
    """The verdict on a box that was at work and then looks like ``seen`` for so long."""
    now = [0.0]
    eyes = Sight(lambda: now[0], brought_up=True)
    eyes.take(seen)
    now[0] = seconds
    eyes.take(seen)
    return verdicts.verdict(eyes.provider, eyes.box, verdicts.LedgerWord(rented=True))


@pytest.mark.parametrize("run_state", ["queued", "preempted"])
def test_a_job_in_the_queue_is_waited_for_and_never_started_again(run_state: str) -> None:
    verdict = after(answer(run_state, "Slurm job 12 is PENDING (Priority)", state="PENDING", meaning="waits"), LATER_S)
    assert (verdict.name, verdict.why) == (verdicts.STARTING, "Slurm job 12 is PENDING (Priority)")
    assert decide(Situation(verdict, brought_up=True)).kind == WAIT


def test_a_job_that_timed_out_is_started_again_and_not_for_ever() -> None:
    verdict = after(answer("preempted", state="TIMEOUT", meaning="goes_on"), 60.0)
    assert decide(Situation(verdict, brought_up=True)).kind == RESTART
    assert decide(Situation(verdict, brought_up=True, tried=Tried(restart=2))).kind == GIVE_UP


def test_a_job_out_of_memory_is_for_people() -> None:
    verdict = after(answer("blocked", blocked_by=("ask for mem: 4911M",), state="OUT_OF_MEMORY"), verdicts.STUCK_S)
    assert decide(Situation(verdict, brought_up=True)).kind == HARVEST_FAILED


@pytest.mark.parametrize(
    ("job", "warned"),
    [
        ({"state": "SUSPENDED", "meaning": "lives"}, True),
        ({"state": "", "meaning": "unknown"}, True),
        ({"state": "RUNNING", "meaning": "lives"}, False),
    ],
)
def test_what_slurm_does_to_a_run_at_work_is_told(job: dict[str, str], warned: bool) -> None:
    seen = answer("running", **job)
    assert (seen.warnings == ("Slurm job 12",)) is warned
    assert after(seen, 10.0).name == (verdicts.ALERT if warned else verdicts.RUNNING)
    assert decide(Situation(after(seen, 10.0), brought_up=True)).kind == WAIT
    assert answer("done", **job).warnings == (), "of a run that is done nobody cares"


@pytest.mark.parametrize(
    ("meaning", "warned"), [("refused", True), ("goes_on", True), ("unknown", True), ("waits", False), ("lives", False)]
)
def test_a_share_that_nobody_works_at_is_told_while_the_others_go_on(meaning: str, warned: bool) -> None:
    tasks = [{"job": "12_0", "meaning": "lives", "why": "x"}, {"job": "12_1", "meaning": meaning, "why": "12_1 ended"}]
    seen = answer("running", state="RUNNING", meaning="lives", tasks=tasks)
    assert (seen.warnings == ("12_1 ended",)) is warned
    assert decide(Situation(after(seen, 10.0), brought_up=True)).kind == WAIT
    assert answer("running", meaning="lives", tasks=["x", {"meaning": []}, None]).contact == "answered"


def test_the_time_limit_is_counted_down_without_an_alarm(tmp_path: Path) -> None:
    profile = yaml.safe_load((PROFILES / "slurm.yml").read_text())
    host = BoxHost("b1", {**profile, "tenant_project": "p", "tenant_state_dir": str(tmp_path)})
    counted = fleet.countdowns(host, answer("running", state="RUNNING", meaning="lives", left_s=600), fleet.Known())
    assert counted[0]["left_s"] == pytest.approx(600, abs=60)
    assert counted[0]["alarm"] is False
    assert "the job reaches its time limit" in counted[0]["effect"]
    unlimited = fleet.countdowns(host, answer("running", state="RUNNING", left_s=None), fleet.Known())
    assert [clock["left_s"] for clock in unlimited if "time limit" in clock["effect"]] == [None]


@pytest.mark.parametrize("batch", [None, [], "x", {"job": {"a": 1}, "left_s": "soon", "why": None, "meaning": []}])
def test_a_hostile_box_breaks_no_look(batch: Any) -> None:
    done = subprocess.CompletedProcess([], 0, json.dumps({"runs": [{"run_id": "r"}], "batch": batch}).encode(), b"")
    seen = supervisor_answer.read_answer(Observation("b1", records.utc_now(), "running"), done, "r")
    assert seen.contact == "answered"
