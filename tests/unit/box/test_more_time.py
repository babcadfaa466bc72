# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A cell that was ended by ``cell_timeout_s``: a plain start takes it up again once the limit is higher, or lifted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.box import (
    attempt,
    control,
    desired,
    failure_class,
    judge,
    refusal,
    run_record,
    seal,
    supervision,
    survey,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout
from test_earlier_failures import RUN

CALLER = control.Caller(("s.pyz",))
LIMITED = dict(RUN, cell_timeout_s=3600, limits={"min_free_bytes": 0, "min_free_inodes": 0})
WORKED_S = 3605.0
DEPLOY = Path(__file__).parents[3] / "roles/deploy/tasks/run.yml"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(str(tmp_path / "root"))
    control.register(layout, CALLER, LIMITED)
    return layout


def ended(layout: Layout, failure: str = failure_class.TIMED_OUT) -> None:
    """Its only cell has worked for an hour and was ended, saving meanwhile."""
    run = run_record.read_run(layout, "r")
    cell = run_record.cell_of(run, "c")
    paths = attempt.claim(layout, run, cell, 1)
    work = attempt.work(run, cell, 1)
    attempt.write_status(paths, work, state=judge.FAILED)
    told = failure_class.Failure(failure, "its time is over").as_dict()
    attempt.write_exit(paths, work, wrapper=judge.TRAINER_FAILED, child=1, failure=told, seconds=WORKED_S)


def begins_again(layout: Layout, limit_s: float, failure: str = failure_class.TIMED_OUT) -> bool:
    """Whether a plain start, after the run was registered with this limit, lets the cell go on."""
    ended(layout, failure)
    return starts_again(layout, limit_s)


def starts_again(layout: Layout, limit_s: float) -> bool:
    control.register(layout, CALLER, dict(LIMITED, cell_timeout_s=limit_s))
    options = control.StartOptions(means=supervision.Means("none"))
    control.start(layout, CALLER, options)
    return survey.survey(layout).next_step() == judge.Step(judge.RUN, "r", "c", 2)


@pytest.mark.parametrize(("limit_s", "again"), [(7200, True), (0, True), (3600, False), (1800, False), (3605, False)])
def test_a_plain_start_takes_it_up_when_there_is_more_time(layout: Layout, limit_s: float, again: bool) -> None:
    assert begins_again(layout, limit_s) is again


def test_more_time_mends_no_other_failure(layout: Layout) -> None:
    assert not begins_again(layout, 0, failure_class.CODE)


def test_after_the_harvest_of_what_it_left_the_seal_is_taken_back_first(layout: Layout) -> None:
    ended(layout)
    seal.seal(layout, CALLER, stop_live=False, grace_s=None)
    with pytest.raises(refusal.Refused, match="the box is sealed") as refused:
        starts_again(layout, 7200)
    assert "deploy_unseal=true" in refused.value.fix
    seal.unseal(layout, CALLER)
    assert starts_again(layout, 7200)


def test_deploy_takes_the_seal_back_before_all_that_a_sealed_box_refuses() -> None:
    tasks = yaml.safe_load(DEPLOY.read_text())
    states = [task.get("tenant.gpu.supervisor", {}).get("state") for task in tasks]
    refused = ["tenant.gpu.secrets" in task or "besides.yml" in str(task) for task in tasks]
    assert states.index("unsealed") < min(refused.index(True), states.index("registered"))


def test_a_boot_never_takes_it_up(layout: Layout) -> None:
    """Else a box that restarts by itself would work at it for ever."""
    ended(layout)
    control.register(layout, CALLER, dict(LIMITED, cell_timeout_s=0))
    before: dict[str, Any] = desired.read(layout)
    assert control.resume_all(layout, CALLER)["changed"] is False
    assert desired.read(layout) == before
    assert survey.survey(layout).next_step().kind == judge.NOTHING
