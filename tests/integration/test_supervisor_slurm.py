# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The supervisor as a job of a real Slurm: it waits its turn, is ended with notice, and is queued again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import detach
from slurm_cluster import Slurm, box_on, running_slurm
from supervised_box import SupervisedBox, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with running_slurm(tmp_path_factory.mktemp("slurm")) as made:
        yield made


@pytest.fixture
def box(slurm: Slurm, tmp_path: Path) -> Iterator[SupervisedBox]:
    with box_on(slurm, tmp_path) as made:
        yield made
    slurm.turn("resume")


def start(box: SupervisedBox) -> dict[str, Any]:
    return box.verb("start", "--detach", "sbatch", "--detach-option=--time=30")


def test_the_supervisor_is_a_job(slurm: Slurm, box: SupervisedBox) -> None:
    box.register_held()
    assert start(box)["changed"]
    box.await_trainer()
    (job,) = slurm.jobs()
    assert job.endswith("RUNNING")
    assert not start(box)["changed"], "a live supervisor is adopted"
    assert slurm.ask("squeue", "--noheader", "--format=%j") == detach.unit_name(str(box.root))
    assert slurm.ask("squeue", "--noheader", "--format=%l") == "30:00", "options reach sbatch"
    box.release()
    box.await_state("done")
    wait_for("the job to end", lambda: not slurm.jobs())
    assert "QUEUE_OK 1 of 1 done" in box.log()


def test_law_9_a_job_that_waits_its_turn_is_pending_and_submitted_once(slurm: Slurm, box: SupervisedBox) -> None:
    slurm.turn("drain")
    box.register()
    first = start(box)
    assert (first["changed"], first["after"]["supervisor"]) == (True, "pending")
    again = start(box)
    assert (again["changed"], again["after"]) == (False, {})
    assert [job.split()[1] for job in slurm.jobs()] == ["PENDING"]
    assert box.run()["state"] == "queued"
    slurm.ask("scontrol", "update", f"NodeName={slurm.node}", "State=resume")
    box.await_state("done")


def test_law_3_a_job_that_slurm_ends_saves_is_queued_again_and_resumes(slurm: Slurm, box: SupervisedBox) -> None:
    box.register_held()
    start(box)
    box.await_trainer()
    job = slurm.jobs()[0].split()[0]
    # What --signal=B:TERM@120 does when the time of the job is nearly over.
    assert slurm.ask("scancel", "--signal=TERM", "--batch", job) == ""
    wait_for("the second attempt", lambda: box.layout.attempt_numbers("digits", "c1") == [1, 2])
    assert "the batch system has taken the job back" in box.log()
    box.await_state("done")
    assert (box.cell()["attempt"], box.cell()["resumed_from_step"]) == (2, 2)
