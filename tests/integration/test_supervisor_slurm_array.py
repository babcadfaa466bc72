# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The cells of one box as a job array of a real Slurm: each task has a share, and they end as one run."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import array, attempt, status
from ansible_collections.tenant.gpu.plugins.plugin_utils import supervisor_task
from slurm_cluster import Slurm, box_on, running_slurm
from supervised_box import SupervisedBox, wait_for

pytestmark = pytest.mark.integration
CELLS = ["c1", "c2", "c3"]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with running_slurm(tmp_path_factory.mktemp("slurm")) as made:
        yield made


@pytest.fixture
def box(slurm: Slurm, tmp_path: Path) -> Iterator[SupervisedBox]:
    with box_on(slurm, tmp_path) as made:
        yield made


def register(box: SupervisedBox) -> None:
    """Three cells, the first of which waits after two steps."""
    held = ["--steps", "4", "--hold-at", "2", "--gate", str(box.gate)]
    cells = [{"id": name, "args": held if name == "c1" else [], "seed": 5} for name in CELLS]
    box.register(cells=cells)


def start(box: SupervisedBox, **more: int) -> dict[str, Any]:
    """As the module does with what the role gives it."""
    given = {
        "detach": "sbatch",
        "batch": {"time": "30", "array_tasks": 3, **more},
        "run_id": "digits",
        "state": "started",
    }
    params = dict.fromkeys(("run", "epoch", "launch", "grace_s")) | {"detach_options": [], "gpus": 0, "nodes": 0}
    params |= {"pyz": str(box.program), "tenant_root": str(box.root), "retry_failed": False, "live_within_s": 60}
    return supervisor_task.Task({**params, **given}, run_command, box.python).act(False)


def run_command(argv: list[str], text: str) -> tuple[int, str, str]:
    done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=600, check=False)
    return done.returncode, done.stdout, done.stderr


def test_law_3_one_task_is_requeued_and_the_roster_adds_up(slurm: Slurm, box: SupervisedBox) -> None:
    register(box)
    first = start(box, array_limit=2)
    assert first["changed"]
    assert first["diff"]["after"]["turn"] == 1
    again = start(box, array_limit=2)
    assert (again["changed"], again["diff"]["after"]) == (False, {}), "a second array is not handed in"
    box.await_trainer()
    (array_id,) = {job.split()[0] for job in slurm.ask("squeue", "--noheader", "--format=%F").splitlines()}
    assert "ArrayTaskThrottle=2" in slurm.ask("scontrol", "--oneliner", "show", "job", f"{array_id}_0")
    assert slurm.ask("scontrol", "requeue", f"{array_id}_0") == ""
    wait_for("the task to wait, or its second attempt", lambda: waits(box) or box.cell("c1")["attempt"] == 2)
    start(box, array_limit=2)
    assert array.read(box.layout)["turn"] == 1, "what waits for its turn is handed in once"
    box.await_state("done")
    assert (box.cell("c1")["attempt"], box.cell("c1")["resumed_from_step"]) == (2, 2)
    assert [box.cell(name)["attempt"] for name in CELLS[1:]] == [1, 1], "the other shares were left alone"
    told = box.run()["queue"]
    assert (told["end"], sorted(told["done"]), told["waiting"]) == ("QUEUE_OK", CELLS, [])
    lives = {name: attempt.read(box.paths(n, name).status, "status")["process"]["job"] for name, n in last(box)}
    assert lives == {"c1": f"{array_id}_0.1", "c2": f"{array_id}_1.0", "c3": f"{array_id}_2.0"}
    log = Path(box.layout.of_share("1-0").log)
    wait_for("the task to speak of its own share", lambda: "QUEUE_OK 1 of 1 done" in log.read_text())


def waits(box: SupervisedBox) -> bool:
    told = status.status(box.layout)["batch"]
    return any(one["meaning"] == "waits" for one in told["tasks"] if one["share"] == "1-0")


def last(box: SupervisedBox) -> list[tuple[str, int]]:
    return [(name, int(box.cell(name)["attempt"])) for name in CELLS]


def test_a_cancelled_task_is_for_a_person_and_is_handed_in_alone(slurm: Slurm, box: SupervisedBox) -> None:
    register(box)
    start(box)
    box.await_trainer()
    array_id = array.tasks(box.layout)[0].array
    slurm.ask("scancel", f"{array_id}_0")
    wait_for("the run to be for a person", lambda: box.run()["state"] == "blocked")
    run = box.run()
    assert run["blocked_by"][0].startswith(f"Slurm job {array_id}_0 is CANCELLED"), run["blocked_by"]
    assert (sorted(run["queue"]["done"]), run["queue"]["waiting"]) == (["c2", "c3"], ["c1"])
    assert start(box)["diff"]["after"]["turn"] == 2
    assert [task.cells for task in array.tasks(box.layout) if task.turn == 2] == [(("digits", "c1"),)]
    box.await_state("done")
    assert box.cell("c1")["resumed_from_step"] == 2
    assert len(box.verb("seal")["seal"]["runs"]) == 1
