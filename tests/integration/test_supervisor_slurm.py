# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The supervisor as a job of a real Slurm: it waits its turn, is ended with notice, and is queued again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import detach
from ports import free_port
from supervised_box import SupervisedBox, supervised_box, wait_for

pytestmark = pytest.mark.integration

CONFIG = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire={requeue_delay_s}
SlurmUser=root
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2
JobRequeue=1
ReturnToService=2
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """One node, one partition; its daemons are children of the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "slurm.conf"
        self.node = socket.gethostname().split(".")[0]
        for name in ("spool", "state"):
            (folder / name).mkdir()
        cpus = len(os.sched_getaffinity(0))
        # A job that is queued again is kept back until its old credential has expired.
        text = CONFIG.format(
            host=self.node,
            folder=folder,
            ports=[free_port("0.0.0.0"), free_port("0.0.0.0")],
            cpus=cpus,
            requeue_delay_s=5,
        )
        self.config.write_text(text)

    def ask(self, *words: str) -> str:
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
        return done.stdout.strip() if done.returncode == 0 else f"failed: {done.stderr}"

    def jobs(self) -> list[str]:
        """``ID STATE`` of every job that has not ended."""
        return self.ask("squeue", "--noheader", "--format=%A %T").splitlines()

    def turn(self, state: str) -> None:
        """``drain`` keeps new jobs from starting, ``resume`` lets them."""
        self.ask("scontrol", "update", f"NodeName={self.node}", f"State={state}", "Reason=test")
        words = {"drain": "drained", "resume": "idle"}
        wait_for("the node's state", lambda: self.ask("sinfo", "--noheader", "--format=%T") == words[state])


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    missing = [name for name in ("slurmctld", "slurmd", "sbatch") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        reason = f"NOT RUN: a Slurm of our own needs root and {', '.join(missing) or 'nothing more'}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    made = Slurm(tmp_path_factory.mktemp("slurm"))
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as daemons:
        patch.setenv("SLURM_CONF", str(made.config))
        for words in (["slurmctld", "-D"], ["slurmd", "-D", "-N", made.node]):
            process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            daemons.callback(_end, process)
        wait_for("the node to be idle", lambda: made.ask("sinfo", "--noheader", "--format=%T") == "idle")
        yield made


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture
def box(slurm: Slurm, tmp_path: Path) -> Iterator[SupervisedBox]:
    with supervised_box(tmp_path) as made:
        yield made
        slurm.ask("scancel", "--user=root")
        wait_for("the job to leave", lambda: not slurm.jobs())
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
