# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A run over two nodes of one job of a real Slurm (two slurmd): a launcher on each, stopped and resumed as one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import batch_options, rendezvous
from ports import free_port
from slurm_cluster import Slurm, box_on, running_slurm
from supervised_box import SupervisedBox, wait_for

pytestmark = pytest.mark.integration
# Notes what its node is told, and on a first life waits to be told to leave.
TRAINER = """\
import json, os, pathlib, signal, sys
out = pathlib.Path(os.environ["TENANT_OUTPUT_DIR"])
node = os.environ["SLURM_NODEID"]
names = ("SLURMD_NODENAME", "MASTER_ADDR", "PET_NODE_RANK", "PET_RDZV_ENDPOINT", "PET_RDZV_CONF", "PET_LOCAL_ADDR")
(out / f"node-{node}.json").write_text(json.dumps({name: os.environ.get(name) for name in names}))
if not os.environ["TENANT_RESUME_DIRS"]:
    signal.signal(signal.SIGTERM, lambda *_: ((out / f"told-{node}").touch(), os._exit(75)))
    (out / f"waits-{node}").touch()
    while True:
        signal.pause()
"""
SUM = """\
import json, os, torch, torch.distributed as dist
dist.init_process_group("gloo")
total = torch.ones(1)
dist.all_reduce(total)
if dist.get_rank() == 0:
    with open(os.environ["TENANT_OUTPUT_DIR"] + "/sum.json", "w") as stream:
        json.dump({"sum": total.item(), "world": dist.get_world_size()}, stream)
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with running_slurm(tmp_path_factory.mktemp("slurm"), nodes=2) as made:
        yield made


@pytest.fixture
def box(slurm: Slurm, tmp_path: Path) -> Iterator[SupervisedBox]:
    with box_on(slurm, tmp_path) as made:
        yield made


def start(box: SupervisedBox, trainer: str, artifact: str, argv: list[str] | None = None) -> dict[str, Any]:
    """Register and start the run as the role does."""
    (box.workdir / "node.py").write_text(trainer)
    nodes = rendezvous.normalise(
        {"count": 2, "backend": "gloo", "port": free_port()}, [], ["c1"], ["python", "node.py"]
    )
    spec = {"id": "digits", "spec_sha256": "a" * 64, "nodes": nodes, "command": ["python", "node.py"]}
    box.register(
        command=spec["command"], nodes=nodes, artifacts=[{"glob": artifact, "role": "other", "loader": "json"}]
    )
    launch = rendezvous.launch_in_job(spec, "vision")
    launch["argv"] = argv or launch["argv"]
    words = [f"--detach-option={word}" for word in batch_options.words({"time": "30"}, nodes=nodes["count"])]
    asked = ["start", "--run", "digits", "--detach", "sbatch", *words, "--launch-file", "-"]
    return box.verb(*asked, stdin=json.dumps(launch))


def test_both_nodes_are_told_where_they_meet_saved_and_started_again(slurm: Slurm, box: SupervisedBox) -> None:
    start(box, TRAINER, "node-*.json", ["python", "node.py"])
    out = Path(box.paths(1).output)
    wait_for("both nodes to work", lambda: all((out / f"waits-{node}").exists() for node in "01"))
    (job,) = [each.split()[0] for each in slurm.jobs()]
    slurm.ask("scancel", "--signal=TERM", "--batch", job)
    wait_for("both nodes to be told", lambda: all((out / f"told-{node}").exists() for node in "01"))
    run = box.await_state("done")
    assert (run["cells"][0]["attempt"], run["queue"]["end"]) == (2, "QUEUE_OK")
    told = [json.loads((Path(box.paths(2).output) / f"node-{node}.json").read_text()) for node in "01"]
    assert [(each["SLURMD_NODENAME"], each["PET_NODE_RANK"]) for each in told] == [("node1", "0"), ("node2", "1")]
    assert {(each["MASTER_ADDR"], each["PET_LOCAL_ADDR"]) for each in told} == {("127.0.0.1", "127.0.0.1")}
    assert [each["PET_RDZV_CONF"].split(",")[0] for each in told] == ["is_host=1", "is_host=0"]
    assert {each["PET_RDZV_ENDPOINT"].partition(":")[0] for each in told} == {"127.0.0.1"}


def test_torchrun_sums_over_both_nodes(slurm: Slurm, box: SupervisedBox) -> None:
    pytest.importorskip("torch")
    start(box, SUM, "sum.json")
    run = box.await_state("done")
    assert run["cells"][0]["attempt"] == 1
    assert json.loads((Path(box.paths(1).output) / "sum.json").read_text()) == {"sum": 2.0, "world": 2}
