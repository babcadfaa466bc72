# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The cells of a box as a job array: who owns what, what Slurm says of the tasks, and one answer for all of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import batch_options
from ansible_collections.tenant.gpu.plugins.module_utils.box import (
    array,
    attempt,
    batch,
    control,
    crew,
    process,
    queue,
    records,
    run_record,
    seal,
    slurm_job,
    status,
    supervise,
    supervision,
    survey,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import UnsafeName
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import Refused
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.plugin_utils import supervisor_task
from test_earlier_failures import RUN
from test_slurm_job import LINE, tool, tools

__all__ = ["tools"]
CALLER = control.Caller(("s.pyz",))
CELLS = [("r", name) for name in "abcd"]
MEANS = supervision.Means("sbatch", (), 2, 1)


def row(tasks: str, state: str, array_id: str = "12", restarts: int = 0) -> str:
    text = LINE.format(state=state, reason="None", restarts=restarts, start="Unknown")
    return text.replace("JobId=12 ", f"JobId=99 ArrayJobId={array_id} ArrayTaskId={tasks} ")


@pytest.fixture
def box(tmp_path: Path) -> Layout:
    layout = Layout(str(tmp_path / "root"))
    cells = [{"id": cell, "args": [], "seed": 0} for _run, cell in CELLS]
    control.register(layout, CALLER, dict(RUN, cells=cells))
    return layout


def slurm(tools: Path, *rows: str, config: str = "MaxArraySize = 1001", squeue: str = "") -> None:
    """A Slurm that tells these rows of its jobs, and keeps what it is told."""
    (tools / "rows").write_text("".join(f"{each}\n" for each in rows))
    shell = f'while read -r row; do echo "$row"; done <{tools}/rows'
    tool(tools, "scontrol", f'case "$*" in *config*) echo "{config}";; *) {shell};; esac')
    tool(tools, "squeue", f"printf '{squeue}'")
    tool(tools, "sbatch", f'echo "$@" >>{tools}/handed_in; echo 12')
    tool(tools, "scancel", f'echo "$@" >>{tools}/cancelled')


def start(layout: Layout, means: supervision.Means = MEANS, check: bool = False) -> dict[str, Any]:
    return control.start(layout, control.Caller(("s.pyz",), check=check), control.StartOptions(means=means))


def handed_in(tools: Path) -> list[str]:
    told = tools / "handed_in"
    return told.read_text().splitlines() if told.exists() else []


# --- what Slurm says --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0", [0]), ("2-3%2", [2, 3]), ("1,4-6", [1, 4, 5, 6]), ("0-8:4", [0, 4, 8]), ("N/A", []), ("1-2,...", [1, 2])],
)
def test_the_numbers_of_tasks(text: str, numbers: list[int]) -> None:
    assert slurm_job.task_numbers(text) == numbers


def test_the_tasks_of_an_array_have_a_state_each(tools: Path) -> None:
    slurm(
        tools, row("0", "RUNNING", restarts=2), row("1", "TIMEOUT"), row("2-3%2", "PENDING"), row("7", "RUNNING", "8")
    )
    found = slurm_job.look_array("12", range(5))
    states = {number: (job.job_id, job.state) for number, job in found.items()}
    assert states == {
        0: ("12_0", "RUNNING"), 1: ("12_1", "TIMEOUT"), 2: ("12_2", "PENDING"), 3: ("12_3", "PENDING"),
    }  # fmt: skip
    assert found[0].label == "12_0.2"


def test_a_list_that_slurm_cuts_short_is_of_all_that_have_no_line(tools: Path) -> None:
    slurm(tools, row("0", "RUNNING"), row("1-2,4,...", "PENDING"))
    assert {n: job.state for n, job in slurm_job.look_array("12", range(200)).items() if n in (0, 150)} == {
        0: "RUNNING", 150: "PENDING",
    }  # fmt: skip


def test_a_task_knows_itself_by_its_number(monkeypatch: pytest.MonkeyPatch, tools: Path) -> None:
    """The last task of an array has the very id of the array: asked for by it, Slurm would take all of them."""
    for name, value in (("JOB_ID", "12"), ("ARRAY_JOB_ID", "12"), ("ARRAY_TASK_ID", "3"), ("RESTART_COUNT", "1")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv(process.OF_SLURM, "1")
    assert process.own_job() == "12_3.1"
    tool(tools, "squeue", "echo RUNNING")
    tool(tools, "scontrol", f'echo "$@" >{tools}/told')
    assert batch.requeue() == ""
    assert (tools / "told").read_text() == "requeue 12_3\n"


@pytest.mark.parametrize(
    ("rows", "lives"), [([row("3", "RUNNING", restarts=1)], True), ([row("3", "PENDING")], False), ([], False)]
)
def test_a_life_of_a_task(tools: Path, monkeypatch: pytest.MonkeyPatch, rows: list[str], lives: bool) -> None:
    monkeypatch.setattr(slurm_job, "_seen_arrays", {})
    slurm(tools, *rows)
    assert slurm_job.lives("12_3.1") is lives


# --- who owns what ----------------------------------------------------------------------------------------------------


def test_the_last_turn_that_names_a_cell_owns_it(box: Layout) -> None:
    assert array.begin(box, array.split(CELLS, 2)) == 1
    array.handed_in(box, 1, "12")
    assert [task.cells for task in array.tasks(box)] == [(CELLS[0], CELLS[2]), (CELLS[1], CELLS[3])]
    assert array.begin(box, [[CELLS[2]]]) == 2
    shares = {task.share: task.cells for task in array.tasks(box)}
    assert shares == {"1-0": (CELLS[0],), "1-1": (CELLS[1], CELLS[3]), "2-0": (CELLS[2],)}
    assert array.owned(box.of_share("1-0")) == {CELLS[0]}
    assert array.owned(box.of_share("7-0")) == frozenset(), "a task of a turn that nobody knows any more"
    assert sorted(cell for task in array.tasks(box) for cell in task.cells) == CELLS, "each cell once"


def test_of_two_arrays_for_one_turn_the_one_that_is_noted_works(box: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    array.begin(box, [CELLS])
    array.handed_in(box, 1, "12")
    monkeypatch.setenv(array.ARRAY_JOB, "13")
    assert array.owned(box.of_share("1-0")) == frozenset()
    monkeypatch.setenv(array.ARRAY_JOB, "12")
    assert array.owned(box.of_share("1-0")) == set(CELLS)


def test_one_supervisor_for_all_takes_every_cell_from_the_tasks(box: Layout) -> None:
    array.begin(box, [CELLS])
    array.retire(box)
    assert array.owned(box.of_share("1-0")) == frozenset()
    assert array.begin(box, [CELLS]) == 2, "a turn is never counted twice"


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_every_cell_is_in_one_share(count: int) -> None:
    shares = array.split(CELLS, count)
    assert len(shares) == min(count, 4)
    assert sorted(cell for share in shares for cell in share) == CELLS
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("share", ["0-1", "1", "../1-0", "1-0/x", "1--0"])
def test_a_share_is_no_path(tmp_path: Path, share: str) -> None:
    with pytest.raises(UnsafeName):
        Layout(str(tmp_path), share)


@pytest.mark.parametrize(
    "damage", [{"turn": -1}, {"handed": []}, {"handed": {"x": {}}}, {"handed": {"1": {"job": "1", "shares": [["a"]]}}}]
)
def test_a_damaged_record_gives_nobody_a_cell(box: Layout, damage: dict[str, Any]) -> None:
    array.begin(box, [CELLS])
    records.write_record(box.array, "array", {**array.read(box), **damage})
    with pytest.raises(records.RecordError):
        array.owned(box.of_share("1-0"))
    batch.note(box, "12")
    assert any("array.json" in told for told in status.status(box)["problems"])


# --- handing in -------------------------------------------------------------------------------------------------------


def test_an_array_is_handed_in_once(box: Layout, tools: Path) -> None:
    slurm(tools, row("0-1%1", "PENDING"))
    predicted = start(box, check=True)
    assert (predicted["changed"], handed_in(tools)) == (True, [])
    first = start(box)
    assert (first["changed"], first["after"]["turn"], first["after"]["supervisor"]) == (True, 1, "pending")
    (words,) = handed_in(tools)
    assert "--array=0-1%1" in words
    assert "--dependency=singleton" in words
    assert f"--output={box.root}/shares/1-%a/supervisor.log" in words
    assert words.endswith('daemon --share 1-"$SLURM_ARRAY_TASK_ID"')
    again = start(box)
    assert (again["changed"], again["after"], len(handed_in(tools))) == (False, {}, 1)
    assert start(box, check=True)["changed"] is False


def test_an_answer_that_was_lost_on_its_way_hands_in_no_second_array(box: Layout, tools: Path) -> None:
    slurm(tools, row("0-1%1", "PENDING"), squeue="12 0-1\\n7 N/A\\n")
    array.begin(box, array.split(CELLS, 2))
    batch.note(box, "7")
    assert start(box)["changed"] is False
    assert (array.read(box)["handed"]["1"]["job"], handed_in(tools)) == ("12", [])


def test_only_what_nobody_will_work_at_is_handed_in_again(box: Layout, tools: Path) -> None:
    array.begin(box, array.split(CELLS, 2))
    array.handed_in(box, 1, "11")
    batch.note(box, "11")
    slurm(tools, row("0", "PENDING", "11"), row("1", "TIMEOUT", "11"), row("0-1%1", "PENDING"))
    assert start(box)["after"]["turn"] == 2
    (words,) = handed_in(tools)
    assert "singleton" not in words, "it need not wait for the end of the others"
    assert {task.share for task in array.tasks(box)} == {"1-0", "2-0", "2-1"}


def test_law_5_a_slurm_that_does_not_answer_starts_nothing(box: Layout, tools: Path) -> None:
    array.begin(box, array.split(CELLS, 2))
    array.handed_in(box, 1, "12")
    batch.note(box, "12")
    slurm(tools)
    tool(tools, "scontrol", "echo 'Unable to contact slurm controller' >&2; exit 1")
    assert crew.uncovered(box, survey.survey(box)) == []
    assert status.status(box)["batch"]["meaning"] == "unknown"


@pytest.mark.parametrize(("size", "fix"), [("1", "set array_tasks to 1 or less"), ("0", "leave array_tasks out")])
def test_max_array_size_is_refused_by_name(box: Layout, tools: Path, size: str, fix: str) -> None:
    slurm(tools, config=f"MaxArraySize            = {size}")
    with pytest.raises(Refused, match=f"MaxArraySize is {size}") as refused:
        start(box)
    assert refused.value.fix.startswith(fix)
    assert (handed_in(tools), array.read(box)["turn"]) == ([], 0)


def test_an_array_is_for_slurm_only(box: Layout, tools: Path) -> None:
    with pytest.raises(Refused, match="detaches by setsid"):
        start(box, supervision.Means("setsid", (), 2))


def test_a_stop_ends_what_waits(box: Layout, tools: Path) -> None:
    slurm(tools, row("0-1%1", "PENDING"))
    start(box)
    done = control.stop(box, CALLER, None, None)
    assert (done["before"]["supervisor"], done["after"]["supervisor"]) == ("pending", "absent")
    assert "--state=PENDING" in (tools / "cancelled").read_text()


# --- one answer -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "meaning", "run_state", "waits"),
    [
        ("PENDING", "PENDING", "waits", "queued", True),
        ("PENDING", "CANCELLED", "waits", "queued", True),
        ("TIMEOUT", "NODE_FAIL", "goes_on", "queued", False),
        ("TIMEOUT", "OUT_OF_MEMORY", "refused", "blocked", False),
        ("CANCELLED", "CANCELLED", "refused", "blocked", False),
        ("COMPLETED", "FAILED", "ended", "queued", False),
    ],
)
def test_the_states_of_the_tasks_are_one_answer(
    box: Layout, tools: Path, first: str, second: str, meaning: str, run_state: str, waits: bool
) -> None:
    array.begin(box, array.split(CELLS, 2))
    array.handed_in(box, 1, "12")
    batch.note(box, "12")
    slurm(tools, row("0", first), row("1", second))
    told = status.status(box)
    (run,) = told["runs"]
    assert (told["batch"]["meaning"], [one["job"] for one in told["batch"]["tasks"]]) == (meaning, ["12_0", "12_1"])
    assert (run["state"], run["waits_for"] != "") == (run_state, waits)
    counted = run["queue"]
    assert sorted(counted["done"] + counted["failed"] + counted["waiting"]) == [cell for _run, cell in CELLS]


def finish(layout: Layout, cell: str, number: int) -> None:
    run = run_record.read_run(layout, "r")
    paths = layout.attempt("r", cell, number)
    os.makedirs(paths.output)
    keys = attempt.work(run, run_record.cell_of(run, cell), number)
    records.write_record(paths.claim, "claim", keys)
    records.write_record(paths.done, "done", {**keys, "artifacts": []})


def test_law_1_a_cell_that_two_tasks_finished_is_counted_by_nobody(box: Layout, tools: Path) -> None:
    array.begin(box, [CELLS])
    slurm(tools)
    for _run, cell in CELLS:
        finish(box, cell, 1)
    (run,) = status.status(box)["runs"]
    assert (run["state"], run["queue"]["end"]) == ("done", queue.OK)
    finish(box, "b", 2)
    (run,) = status.status(box)["runs"]
    assert (run["state"], run["queue"]["end"]) == ("blocked", queue.ABORTED)
    assert "cell b was finished more than once (a1, a2)" in run["blocked_by"][0]
    with pytest.raises(Refused, match="cell b was finished more than once"):
        seal.seal(box, CALLER, False, None)
    os.rename(box.attempt("r", "b", 2).folder, f"{box.root}/aside")
    assert seal.seal(box, CALLER, False, None)["changed"]


def test_a_task_that_comes_back_too_late_works_at_nothing(
    box: Layout, tools: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    array.begin(box, [CELLS])
    array.begin(box, [CELLS])
    slurm(tools)
    late = box.of_share("1-0")
    os.makedirs(late.own, exist_ok=True)
    assert supervise.Supervisor(late, ["s.pyz"])._decide() == (None, 0)
    assert "later tasks have taken its cells over" in capfd.readouterr().err
    assert survey.survey(late).cells == ()
    assert len(survey.survey(box.of_share("2-0")).cells) == 4


# --- the one door -----------------------------------------------------------------------------------------------------


def test_a_person_asks_for_an_array_through_the_one_door() -> None:
    options = {"partition": "gpu", "array_tasks": 8, "array_limit": 2}
    assert batch_options.words(options) == ["--partition=gpu"], "how many tasks there are is the box's affair"
    params = dict.fromkeys(("run", "run_id", "pyz", "epoch", "gpus")) | {"tenant_root": "/x", "batch": options}
    task = supervisor_task.Task(params, lambda argv, text: (0, "", ""), "python")
    assert task._array_options() == ["--array-tasks", "8", "--array-limit", "2"]


@pytest.mark.parametrize(
    ("options", "key"),
    [({"array_limit": 2}, "array_limit"), ({"array_tasks": "8"}, "array_tasks"), ({"array_tasks": -1}, "array_tasks")],
)
def test_what_is_no_array_is_named(options: dict[str, Any], key: str) -> None:
    with pytest.raises(TenantFailure, match=key):
        batch_options.words(options)


def test_the_record_has_its_words(box: Layout) -> None:
    array.begin(box, [CELLS])
    told = json.loads(Path(box.array).read_text())
    assert (told["schema"], told["turn"]) == ("gpu-tenant/array/v1", 1)
