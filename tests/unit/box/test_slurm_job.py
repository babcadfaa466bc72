# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What Slurm's words mean for a run: the table of states, the answers of its tools, and what a status makes of them."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import (
    attempt,
    batch,
    control,
    desired,
    process,
    records,
    slurm_job,
    status,
    supervision,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import Refused
from test_earlier_failures import RUN

LINE = (
    "JobId=12 JobName=gpu-tenant-0a1b2c3d UserId=ada(1000) GroupId=ada(1000) MCS_label=N/A Priority=1 Nice=0 "
    "Account=(null) QOS=(null) JobState={state} Reason={reason} Dependency=(null) Requeue=1 Restarts={restarts} "
    "BatchFlag=1 Reboot=0 ExitCode=0:0 RunTime=00:10:05 TimeLimit=1-02:00:00 TimeMin=N/A StartTime={start} "
    "EndTime=Unknown Partition=main NodeList=node7 MinCPUsNode=1 MinMemoryNode=4G MinTmpDiskNode=0 Comment=a b"
)
# As slurm.h names them, from pending to the flags that squeue shows in their place.
STATES = [
    "PENDING",
    "RUNNING",
    "SUSPENDED",
    "COMPLETED",
    "CANCELLED",
    "FAILED",
    "TIMEOUT",
    "NODE_FAIL",
    "PREEMPTED",
    "BOOT_FAIL",
    "DEADLINE",
    "OUT_OF_MEMORY",
    "CONFIGURING",
    "COMPLETING",
    "STOPPED",
    "RESIZING",
    "REQUEUED",
    "REQUEUE_FED",
    "REQUEUE_HOLD",
    "SPECIAL_EXIT",
    "RESV_DEL_HOLD",
    "SIGNALING",
    "STAGE_OUT",
    "REVOKED",
    "LAUNCH_FAILED",
    "RECONFIG_FAIL",
]


def line(state: str, reason: str = "None", restarts: int = 0, start: str = "Unknown") -> str:
    return LINE.format(state=state, reason=reason, restarts=restarts, start=start)


def tool(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose programs are the only ones on PATH, and a Slurm that was asked nothing yet."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(slurm_job, "_seen", {})
    return folder


def test_every_state_has_one_meaning() -> None:
    assert sorted(slurm_job.MEANING) == sorted(STATES)
    meanings = {state: slurm_job.MEANING[state] for state in STATES}
    assert [state for state in STATES if meanings[state] == slurm_job.REFUSED] == [
        "CANCELLED",
        "DEADLINE",
        "OUT_OF_MEMORY",
    ]
    for state in ("TIMEOUT", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL"):
        assert meanings[state] == slurm_job.GOES_ON, "cut short by no fault of the run: the next start continues it"
    for state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "CONFIGURING"):
        assert meanings[state] == slurm_job.WAITS


@pytest.mark.parametrize(
    ("said", "word"), [("CANCELLED by 1000", "CANCELLED"), ("CANCELLED+", "CANCELLED"), (" running ", "RUNNING")]
)
def test_states_as_the_tools_write_them(said: str, word: str) -> None:
    assert slurm_job.state_word(said) == word


def test_a_job_as_scontrol_tells_it() -> None:
    job = slurm_job.parse_scontrol(line("RUNNING", restarts=2))
    assert job is not None
    assert (job.job_id, job.state, job.label, job.node, job.memory) == ("12", "RUNNING", "12.2", "node7", "4G")
    assert job.left_s == 26 * 3600 - 605
    assert slurm_job.parse_scontrol("No jobs in the system") is None
    ended = slurm_job.parse_scontrol(line("TIMEOUT"))
    assert ended is not None
    assert ended.left_s is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 1800), ("30:05", 1805), ("01:00:00", 3600), ("2-00:00:10", 172810), ("1-12", 129600), ("UNLIMITED", None)],
)
def test_spans_of_time(text: str, seconds: int | None) -> None:
    assert slurm_job.span_s(text) == seconds


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        ("PENDING", "Priority", "is PENDING (Priority), Slurm expects its start at 2026-11-22T10:00:00"),
        ("PENDING", "JobHeldUser", "is held (JobHeldUser): scontrol release 12"),
        ("REQUEUE_HOLD", "", "is held: scontrol release 12"),
        ("SUSPENDED", "None", "Slurm lets it go on by itself"),
        ("CANCELLED", "None", "somebody ended it; start it again"),
        ("DEADLINE", "None", "its deadline passed; start it again"),
    ],
)
def test_sentences(state: str, reason: str, words: str) -> None:
    job = slurm_job.parse_scontrol(line(state, reason, start="2026-11-22T10:00:00"))
    assert job is not None
    assert words in slurm_job.sentence(job)


# --- SLURM4 ----------------------------------------------------------------------------------------------------------


def test_out_of_memory_names_what_to_ask_for(tools: Path) -> None:
    tool(tools, "scontrol", f"echo '{line('OUT_OF_MEMORY')}'")
    tool(tools, "sacct", "echo 'OUT_OF_MEMORY|0:125||4Gn'; echo 'OUT_OF_MEMORY|0:125|4190000K|4Gn'")
    job = slurm_job.look("12")
    assert job is not None
    assert "mem: 4911M (1.2 times its MaxRSS)" in slurm_job.sentence(job)


def test_out_of_memory_without_accounts_goes_by_what_it_had(tools: Path) -> None:
    tool(tools, "scontrol", f"echo '{line('OUT_OF_MEMORY')}'")
    tool(tools, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    job = slurm_job.look("12")
    assert job is not None
    assert "mem: 4916M or more (it had 4G" in slurm_job.sentence(job)


# --- what is asked, and what silence means ---------------------------------------------------------------------------


def test_a_forgotten_job_is_looked_up_in_the_accounts(tools: Path) -> None:
    tool(tools, "scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert slurm_job.look("12") is None
    tool(tools, "sacct", "echo 'CANCELLED by 0|0:0||1G'")
    job = slurm_job.look("12")
    assert job is not None
    assert job.meaning == slurm_job.REFUSED


def test_law_5_a_controller_that_is_down_ends_nothing(tools: Path) -> None:
    tool(tools, "scontrol", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(Refused, match="Unable to contact"):
        slurm_job.look("12")
    assert slurm_job.lives("12.0")


@pytest.mark.parametrize(
    ("state", "restarts", "lives"), [("RUNNING", 1, True), ("RUNNING", 2, False), ("PENDING", 1, False)]
)
def test_a_life_of_a_job_ends_with_its_requeue(tools: Path, state: str, restarts: int, lives: bool) -> None:
    tool(tools, "scontrol", f"echo '{line(state, restarts=restarts)}'")
    assert slurm_job.lives("12.1") is lives


def test_a_process_of_another_node_gets_no_signal_meant_for_a_pid_here(tools: Path) -> None:
    """Its pid may be anybody's here: only Slurm can reach it, and what it reaches is the batch step."""
    here = process.myself()
    far = process.Identity("another", here.pid1_start, here.pid, here.start, "12.0")
    tool(tools, "scontrol", f"echo '{line('RUNNING')}'")
    tool(tools, "scancel", f'echo "$@" >>{tools}/told')
    assert process.observe(far) == process.ALIVE
    assert process.send(far, 15)
    assert process.send(far, 9)
    assert not process.send_group(far, 9)
    assert process.age_s(far) is None
    assert (tools / "told").read_text().splitlines() == ["--batch --signal=TERM 12", "12"]
    assert process.identity_from(json.loads(json.dumps(far.as_dict()))) == far


def test_a_process_knows_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "job" not in process.myself().as_dict()
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    assert process.myself().job == "", "of a job that is not ours: it is not the supervisor's"
    monkeypatch.setenv(process.OF_SLURM, "1")
    assert process.myself().job == "77.0"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    assert process.myself().job == "77.3"


@pytest.mark.parametrize(
    ("state", "queued"), [("RUNNING", True), ("CANCELLED", False), ("COMPLETING", False), ("", False)]
)
def test_a_cancelled_job_does_not_put_itself_back(
    tools: Path, monkeypatch: pytest.MonkeyPatch, state: str, queued: bool
) -> None:
    tool(tools, "squeue", f"echo {state}")
    tool(tools, "scontrol", f'echo "$@" >{tools}/told')
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    assert batch.requeue() == "it is no batch job of ours"
    monkeypatch.setenv(process.OF_SLURM, "1")
    assert (batch.requeue() == "") is queued
    assert (tools / "told").exists() is queued


def test_the_command_that_hands_the_job_in() -> None:
    words = batch.command(["/usr/bin/python3", "/x y/s.pyz"], "gpu-tenant-1", "/data/log", ["--time=30"], 200.0)
    assert words[0] == "sbatch"
    assert {"--requeue", "--signal=B:TERM@230", "--dependency=singleton", "--time=30"} <= set(words)
    assert words[-1].endswith("exec env TENANT_SLURM_REQUEUES=1 /usr/bin/python3 '/x y/s.pyz'")
    assert "SRUN_CPUS_PER_TASK" in words[-1], "SLURM3"
    given = batch.command(["s"], "n", "/l", ["--signal=B:TERM@900", "--dependency=afterok:3"], 1.0)
    assert "--dependency=afterok:3,singleton" in given
    assert [word for word in given if word.startswith("--signal")] == ["--signal=B:TERM@900"]


# --- what a status makes of it ---------------------------------------------------------------------------------------


@pytest.fixture
def box(tmp_path: Path) -> Layout:
    layout = Layout(str(tmp_path / "root"))
    control.register(layout, control.Caller(("s.pyz",)), RUN)
    batch.note(layout, "12")
    return layout


def run_of(layout: Layout) -> dict[str, Any]:
    (run,) = status.status(layout)["runs"]
    return dict(run)


@pytest.mark.parametrize(
    ("state", "run_state", "waits"),
    [
        ("PENDING", "queued", True),
        ("REQUEUED", "queued", True),
        ("TIMEOUT", "queued", False),
        ("NODE_FAIL", "queued", False),
        ("COMPLETED", "queued", False),
        ("OUT_OF_MEMORY", "blocked", False),
        ("CANCELLED", "blocked", False),
    ],
)
def test_a_run_by_the_state_of_its_job(box: Layout, tools: Path, state: str, run_state: str, waits: bool) -> None:
    tool(tools, "scontrol", f"echo '{line(state)}'")
    run = run_of(box)
    assert (run["state"], run["waits_for"] != "") == (run_state, waits)
    assert all(f"Slurm job 12 is {state}" in why for why in run["blocked_by"])


@pytest.mark.parametrize(("life", "waits"), [("12.0", True), ("11.1", True), ("", True), ("12.1", False)])
def test_a_job_that_runs_again_is_waited_for_until_its_own_supervisor_is_there(
    box: Layout, tools: Path, life: str, waits: bool
) -> None:
    """The record of the supervisor before the requeue says how that one ended, and nothing of this life."""
    tool(tools, "scontrol", f"echo '{line('RUNNING', restarts=1)}'")
    gone = process.Identity("0b7e2a52-0000-4000-8000-000000000001", 1, 4, 5, life)
    stopped = {"process": gone.as_dict(), "stopped_at": records.utc_now(), "why": "asked to stop"}
    records.write_record(box.daemon, "daemon", stopped)
    assert (run_of(box)["waits_for"] != "") is waits
    assert (batch.coming_job(box, life) == "12") is waits, "and no second job is handed in meanwhile"


@pytest.mark.parametrize("then", ["COMPLETING", "PENDING", "CONFIGURING", "RUNNING"])
def test_no_second_job_is_handed_in_beside_one_that_is_queued_again_meanwhile(
    box: Layout, tools: Path, then: str
) -> None:
    """While it ends, Slurm counts it among those that wait not yet; a moment later it may be at any step."""
    tool(tools, "squeue", "true")
    tool(tools, "scontrol", f"echo '{line(then, restarts=1)}'")
    tool(tools, "sbatch", f"touch {tools}/handed-in; echo 13")
    gone = process.Identity("0b7e2a52-0000-4000-8000-000000000001", 1, 4, 5, "12.0")
    stopped = {"process": gone.as_dict(), "stopped_at": records.utc_now(), "why": "asked to stop"}
    records.write_record(box.daemon, "daemon", stopped)
    done = control.start(box, control.Caller(("s.pyz",)), control.StartOptions(means=supervision.Means("sbatch")))
    assert not done["changed"], done
    assert not (tools / "handed-in").exists()


def test_a_stop_of_a_batch_job_lasts_whatever_machine_asks(
    box: Layout, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool(tools, "scontrol", f"echo '{line('PENDING')}'")
    tool(tools, "squeue", "echo 12")
    tool(tools, "scancel", f'echo "$@" >{tools}/told')
    done = control.stop(box, control.Caller(("s.pyz",)), None, None)
    assert (done["before"]["supervisor"], done["after"]["supervisor"]) == ("pending", "absent")
    assert (tools / "told").read_text().startswith("--me --name=gpu-tenant-"), "it would wait for its turn for nothing"
    monkeypatch.setattr(process, "current_boot", lambda: process.Boot("another machine", 1))
    assert not desired.orders(box).may_run("r")


def test_an_attempt_elsewhere_ends_before_its_job(box: Layout, tools: Path) -> None:
    tool(tools, "scontrol", f"echo '{line('RUNNING')}'")
    paths = box.attempt("r", "c", 1)
    os.makedirs(paths.folder)
    far = process.Identity("another", 1, 4, 5, "12.0").as_dict()
    records.write_record(paths.status, "status", {"process": far, "shim": far, "state": "running"})
    assert attempt.is_alive(paths)
    assert process.began_s(attempt.trainer_of(paths)) is None, "its machine counts from another boot"
    attempt.write_exit(paths, {}, wrapper=0, child=0)
    assert not attempt.is_alive(paths)
