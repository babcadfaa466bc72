# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The nodes of one Slurm job: where they meet, what differs between them, and how a request to save reaches them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import srun_step
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import Refused
from test_slurm_job import tool, tools

__all__ = ["tools"]
NODES = {"count": 2, "port": 29500, "rendezvous": "c10d"}
SCONTROL = """\
case "$*" in
  "show hostnames gpu[7-8]") echo gpu7; echo gpu8 ;;
  *gpu7) echo "NodeName=gpu7 NodeAddr=10.0.0.7 NodeHostName=gpu7" ;;
  *) echo "NodeName=gpu8 NodeAddr=10.0.0.8 NodeHostName=gpu8" ;;
esac"""


@pytest.fixture
def job(tools: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLURM_JOB_NODELIST", "gpu[7-8]")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    tool(tools, "scontrol", SCONTROL)
    return tools


def test_the_first_of_the_node_list_is_where_they_meet(job: Path) -> None:
    known = srun_step.environment(NODES)
    assert known == {
        "TENANT_NODE_ADDRESSES": "10.0.0.7 10.0.0.8",
        "MASTER_ADDR": "10.0.0.7",
        "MASTER_PORT": "29500",
        "PET_RDZV_ENDPOINT": "10.0.0.7:29500",
    }
    static = srun_step.environment(dict(NODES, rendezvous="static"))
    assert (static["PET_MASTER_ADDR"], static["PET_MASTER_PORT"]) == ("10.0.0.7", "29500")
    assert "PET_RDZV_ENDPOINT" not in static


def test_a_job_of_another_size_starts_nothing(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match="works on 3 nodes, and this job has 2"):
        srun_step.environment(dict(NODES, count=3))
    monkeypatch.delenv("SLURM_JOB_NODELIST")
    with pytest.raises(Refused, match="2 nodes of a Slurm job, and this is none"):
        srun_step.environment(NODES)


def test_the_steps_of_a_killed_attempt_are_ended_first(job: Path) -> None:
    tool(job, "squeue", "echo 12.batch; echo 12.extern; echo 12.0; echo 12.1")
    tool(job, "scancel", f'echo "$@" >>{job}/told')
    srun_step.end_leftovers()
    assert (job / "told").read_text().splitlines() == ["12.0", "12.1"]


@pytest.mark.parametrize(
    ("node", "told"), [("0", "0 10.0.0.7 is_host=1,timeout=5"), ("1", "1 10.0.0.8 is_host=0,timeout=5")]
)
def test_what_differs_between_the_nodes(node: str, told: str) -> None:
    words = srun_step.wrapped(["sh", "-c", 'echo "$PET_NODE_RANK $PET_LOCAL_ADDR $PET_RDZV_CONF"'], 2)
    rank = words[words.index("--unbuffered") + 1 :]
    known = {"SLURM_NODEID": node, "TENANT_NODE_ADDRESSES": "10.0.0.7 10.0.0.8", "PET_RDZV_CONF": "timeout=5"}
    known |= {"PET_RDZV_ENDPOINT": "10.0.0.7:1", "PATH": os.environ["PATH"]}
    assert subprocess.run(rank, env=known, capture_output=True, text=True, check=True).stdout.strip() == told


def head(tmp_path: Path, steps: str) -> tuple[subprocess.Popen[bytes], Path]:
    """The head of a run whose srun notes which signal it was sent, and ends when its step was told or it was."""
    folder = tmp_path / "head"
    folder.mkdir()
    mark = folder / "mark"
    lines = [f"trap 'echo srun >{mark}; exit 3' TERM", f"exec 9<>{folder}/fifo", f": >{folder}/there"]
    tool(folder, "srun", "\n".join([*lines, "read -r code <&9", "exit $code"]))
    os.mkfifo(folder / "fifo")
    tool(folder, "squeue", steps or "true")
    tool(folder, "scancel", f'echo "$@" >{mark}; echo 75 >{folder}/fifo')
    known = {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "12"}
    return subprocess.Popen(srun_step.wrapped(["true"], 2), env=known, start_new_session=True), folder


def there(folder: Path, running: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 600
    while not (folder / "there").exists():
        assert running.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGTERM)


@pytest.mark.parametrize(
    ("steps", "mark", "code"), [("echo 12.batch; echo 12.4", "--signal=TERM 12.4", 75), ("", "srun", 3)]
)
def test_a_request_to_save_reaches_the_step_and_not_srun(tmp_path: Path, steps: str, mark: str, code: int) -> None:
    """srun would kill its tasks at once. Before it has a step there is nothing to save, and it is told itself."""
    running, folder = head(tmp_path, steps)
    there(folder, running)
    assert running.wait(timeout=600) == code
    assert (folder / "mark").read_text().strip() == mark
