# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A Slurm of our own for tests: slurmctld, and one slurmd that is a machine of its own where that is wanted."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ports import free_port
from supervised_box import wait_for

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


@contextlib.contextmanager
def running_slurm(folder: Path, elsewhere: bool = False) -> Iterator[Slurm]:
    """:param elsewhere: the node has processes of its own, of which this machine sees none, as another machine has."""
    missing = [name for name in ("slurmctld", "slurmd", "sbatch") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        reason = f"NOT RUN: a Slurm of our own needs root and {', '.join(missing) or 'nothing more'}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    made = Slurm(folder)
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as daemons:
        patch.setenv("SLURM_CONF", str(made.config))
        far = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"] if elsewhere else []
        for words in (["slurmctld", "-D"], [*far, "slurmd", "-D", "-N", made.node]):
            process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            # Who is the first of a process namespace hears no SIGTERM, and takes all of it along.
            daemons.callback(_end, process, signal.SIGKILL if words[0] == "unshare" else signal.SIGTERM)
        wait_for("the node to be idle", lambda: made.ask("sinfo", "--noheader", "--format=%T") == "idle")
        yield made


def _end(process: subprocess.Popen[bytes], number: int) -> None:
    process.send_signal(number)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
