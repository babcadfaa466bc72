# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A login node and a compute node: they share files, and neither sees the other's processes. On a real Slurm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from slurm_cluster import Slurm, box_on, running_slurm
from supervised_box import SupervisedBox, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with running_slurm(tmp_path_factory.mktemp("slurm"), elsewhere=True) as made:
        yield made


@pytest.fixture
def box(slurm: Slurm, tmp_path: Path) -> Iterator[SupervisedBox]:
    with box_on(slurm, tmp_path) as made:
        yield made


def start(box: SupervisedBox) -> dict[str, Any]:
    return box.verb("start", "--detach", "sbatch", "--detach-option=--time=30")


def at_work(box: SupervisedBox) -> Any:
    return wait_for("the trainer's first steps", lambda: box.cell().get("step") is not None and box.cell())


def test_law_5_what_runs_on_another_node_is_seen_and_not_started_again(slurm: Slurm, box: SupervisedBox) -> None:
    box.register_held()
    assert start(box)["changed"]
    cell = at_work(box)
    assert (cell["state"], cell["liveness"]) == ("running", "alive")
    status = box.verb("status")
    assert status["daemon"]["alive"]
    assert (status["batch"]["state"], status["batch"]["meaning"]) == ("RUNNING", "lives")
    assert 0 < status["batch"]["left_s"] <= 1800
    again = start(box)
    assert (again["changed"], again["adopted"]) == (False, True)
    assert len(slurm.jobs()) == 1
    code, refused = box.ask("seal")
    assert (code, refused["kind"]) == (17, "live"), refused


def test_a_stop_reaches_the_other_node_and_lasts(slurm: Slurm, box: SupervisedBox) -> None:
    box.register_held()
    start(box)
    at_work(box)
    assert box.verb("stop", "--run", "digits")["stopped_cells"] == ["digits/c1"]
    wait_for("the job to end, and not to come back", lambda: not slurm.jobs())
    run = box.run()
    assert (run["state"], run["stopped"], run["blocked_by"], run["waits_for"]) == ("preempted", True, [], "")
    start(box)
    box.await_state("done")
    assert (box.cell()["attempt"], box.cell()["resumed_from_step"]) == (2, 2)


def test_a_job_that_a_person_cancelled_waits_for_a_person(slurm: Slurm, box: SupervisedBox) -> None:
    box.register_held()
    start(box)
    at_work(box)
    job = slurm.jobs()[0].split()[0]
    slurm.ask("scancel", job)
    wait_for("the job to end", lambda: not slurm.jobs())
    wait_for("the word of it", lambda: box.run()["state"] == "blocked")
    (why,) = box.run()["blocked_by"]
    assert why.startswith(f"Slurm job {job} is CANCELLED"), why
    assert "the job is " in box.log(), "it did not put itself back into the queue"
    start(box)
    box.await_state("done")


def test_law_3_a_job_that_an_administrator_requeues_goes_on(slurm: Slurm, box: SupervisedBox) -> None:
    box.register_held()
    start(box)
    at_work(box)
    job = slurm.jobs()[0].split()[0]
    assert slurm.ask("scontrol", "requeue", job) == ""
    # It waits for its turn meanwhile, which is no death, and nothing is handed in beside it.
    wait_for("the job to wait", lambda: box.run()["waits_for"] or box.cell()["attempt"] == 2)
    start(box)
    assert len(slurm.jobs()) == 1
    box.await_state("done")
    assert (box.cell()["attempt"], box.cell()["resumed_from_step"]) == (2, 2)
    wait_for("the job to end", lambda: not slurm.jobs())
    assert box.verb("status")["batch"]["restarts"] == 1
