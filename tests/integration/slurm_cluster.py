# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A Slurm of our own for tests: slurmctld, and slurmd, which is a machine of its own where that is wanted."""

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
from supervised_box import SupervisedBox, supervised_box, wait_for

CONFIG = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire={requeue_delay_s}
SlurmUser=root
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2
JobRequeue=1
ReturnToService=2
KillWait=60
MessageTimeout=100
BatchStartTimeout=300
PartitionName=main Nodes={nodes} Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} State=UNKNOWN\n"


class Slurm:
    """One partition; its daemons are children of the test. Several nodes are several slurmd on this machine."""

    def __init__(self, folder: Path, nodes: int = 1) -> None:
        self.folder = folder
        self.config = folder / "slurm.conf"
        self.node = socket.gethostname().split(".")[0]
        self.nodes = [self.node] if nodes == 1 else [f"node{number}" for number in range(1, nodes + 1)]
        for name in ("state", *(f"spool-{name}" for name in self.nodes)):
            (folder / name).mkdir()
        cpus = len(os.sched_getaffinity(0))
        told = {
            name: NODE.format(name=name, host=self.node, port=free_port("0.0.0.0"), cpus=cpus) for name in self.nodes
        }
        # A job that is queued again is kept back until its old credential has expired. Who is ended has time to write
        # down how, and no answer is late because the machine has more to do.
        text = "".join(told.values()) + CONFIG.format(
            host=self.node,
            folder=folder,
            ports=[free_port("0.0.0.0")],
            nodes=",".join(self.nodes),
            requeue_delay_s=5,
        )
        self.config.write_text(text)

    def ask(self, *words: str) -> str:
        done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)
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
def running_slurm(folder: Path, elsewhere: bool = False, nodes: int = 1) -> Iterator[Slurm]:
    """:param elsewhere: the node has processes of its own, of which this machine sees none, as another machine has."""
    missing = [name for name in ("slurmctld", "slurmd", "sbatch") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        reason = f"NOT RUN: a Slurm of our own needs root and {', '.join(missing) or 'nothing more'}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    made = Slurm(folder, nodes)
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as daemons:
        patch.setenv("SLURM_CONF", str(made.config))
        far = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"] if elsewhere else []
        for words in (["slurmctld", "-D"], *([*far, "slurmd", "-D", "-N", name] for name in made.nodes)):
            process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            # Who is the first of a process namespace hears no SIGTERM, and takes all of it along.
            daemons.callback(_end, process, signal.SIGKILL if words[0] == "unshare" else signal.SIGTERM)
        idle = f"idle {nodes}"
        wait_for("every node to be idle", lambda: made.ask("sinfo", "--noheader", "--format=%T %D") == idle)
        yield made


def _end(process: subprocess.Popen[bytes], number: int) -> None:
    process.send_signal(number)
    try:
        process.wait(timeout=600)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def box_on(slurm: Slurm, folder: Path) -> Iterator[SupervisedBox]:
    """A box whose supervisors are jobs of this cluster; they are gone in the end."""
    with supervised_box(folder) as box:
        try:
            yield box
        finally:
            slurm.ask("scancel", "--user=root")
            wait_for("the jobs to leave", lambda: not slurm.jobs())
