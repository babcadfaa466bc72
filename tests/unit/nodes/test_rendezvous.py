# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One torchrun command for all boxes: what a run spec may ask for, and what is rendered from it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import rendezvous
from ansible_collections.tenant.gpu.plugins.module_utils.box import launch as box_launch
from ansible_collections.tenant.gpu.plugins.module_utils.box import run_record as on_the_box
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.rendezvous import Member
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import load_run_spec, run_record

GOOD: dict[str, Any] = {
    "id": "wide",
    "command": ["python", "train.py", "--epochs", 3],
    "artifacts": [{"glob": "model.pt"}],
    "parts": ["node-a", "node-b"],
    "nodes": {"port": 29511, "backend": "gloo"},
}
MEMBERS = [Member("node-a", "10.0.0.9", "eth1"), Member("node-b", "10.0.0.10", "ens3")]


@pytest.fixture
def load(tmp_path: Path) -> Any:
    (tmp_path / "train.py").write_text("pass\n")

    def load(**changes: Any) -> dict[str, Any]:
        (tmp_path / "run.yml").write_text(yaml.safe_dump({**GOOD, **changes}, sort_keys=False))
        return load_run_spec(str(tmp_path / "run.yml"))

    return load


def test_nodes_get_every_default_and_their_count_from_the_parts(load: Any) -> None:
    assert load()["nodes"] == {
        "count": 2,
        "nproc_per_node": 1,
        "port": 29511,
        "backend": "gloo",
        "interface": "",
        "rendezvous": "c10d",
        "wait_s": 1800,
    }
    assert load(nodes={})["nodes"] == {}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"nodes": {"ports": 1}}, "unknown keys: ports"),
        ({"parts": []}, "needs 'parts'"),
        ({"parts": ["node-a"]}, "needs 'parts'"),
        ({"parts": ["node-a"], "nodes": {"count": 2}}, "needs 'parts'"),
        ({"parts": [], "nodes": {"count": 1}}, "the number of nodes of a Slurm job, from 2"),
        ({"parts": [], "nodes": {"count": True}}, "the number of nodes of a Slurm job, from 2"),
        ({"nodes": {"count": 3}}, "nodes.count is 3, but 'parts' names 2 boxes"),
        ({"nodes": {"port": 80}}, "nodes.port is 80"),
        ({"nodes": {"port": True}}, "nodes.port is True"),
        ({"nodes": {"nproc_per_node": 0}}, "nodes.nproc_per_node is 0"),
        ({"nodes": {"wait_s": 1.5}}, "nodes.wait_s is 1.5"),
        ({"nodes": {"backend": "mpi"}}, "nodes.backend 'mpi' is none of nccl, gloo"),
        ({"nodes": {"rendezvous": "etcd"}}, "nodes.rendezvous 'etcd'"),
        ({"nodes": {"interface": "eth0; rm"}}, "is not the name of a network interface"),
        ({"nodes": {"interface": 5}, "command": ["python", "-u", "x.py"]}, "followed by a script or by -m"),
        ({"cells": [{"id": "a"}, {"id": "b"}]}, "has one cell"),
        ({"command": ["torchrun", "train.py"]}, "'command' calls torchrun itself"),
        ({"command": ["python", "-m", "torch.distributed.run", "train.py"]}, "calls torch.distributed.run itself"),
        ({"command": ["python", "-u", "train.py"]}, "followed by a script or by -m and a module"),
        ({"command": ["python"]}, "followed by a script"),
    ],
)
def test_what_cannot_be_launched_is_refused_with_file_and_line(load: Any, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(TenantFailure, match=r"run\.yml line [1-9]") as caught:
        load(**changes)
    assert says in str(caught.value)
    assert "nothing was rented" in str(caught.value)


def test_the_command_is_the_same_on_every_box_and_what_differs_is_environment(load: Any) -> None:
    spec = load()
    launches = rendezvous.launches(spec, "vision", MEMBERS)
    assert launches["node-a"]["argv"] == launches["node-b"]["argv"] == [
        "python", "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--max-restarts=0",
        f"--rdzv-id=vision.wide.{spec['spec_sha256'][:12]}", "--rdzv-backend=c10d",
        "--rdzv-endpoint=10.0.0.10:29511", "train.py", "--epochs", "3",
    ]  # fmt: skip
    # torch ranks by address as text, so the second box has rank 0 and holds the store.
    assert launches["node-b"]["leader"] is True
    assert launches["node-b"]["env"] == {
        "PET_RDZV_CONF": "is_host=1,join_timeout=1800,read_timeout=300",
        "PET_LOCAL_ADDR": "10.0.0.10",
        "GLOO_SOCKET_IFNAME": "ens3",
        "NCCL_SOCKET_IFNAME": "ens3",
    }
    assert launches["node-a"]["leader"] is False
    assert launches["node-a"]["env"]["PET_RDZV_CONF"].startswith("is_host=0,")
    assert [member["box"] for member in launches["node-a"]["members"]] == ["node-b", "node-a"]


def test_a_static_rendezvous_takes_the_order_of_the_parts_and_says_each_rank(load: Any) -> None:
    launches = rendezvous.launches(load(nodes={"rendezvous": "static", "wait_s": 60}), "vision", MEMBERS)
    assert launches["node-a"]["argv"] == launches["node-b"]["argv"]
    assert launches["node-a"]["argv"][7:10] == [
        "--rdzv-backend=static",
        "--master-addr=10.0.0.9",
        "--master-port=29500",
    ]
    assert [launches[box]["env"]["PET_NODE_RANK"] for box in ("node-a", "node-b")] == ["0", "1"]
    assert launches["node-a"]["leader"] is True
    assert "PET_NODE_RANK" not in rendezvous.launches(load(), "vision", MEMBERS)["node-b"]["env"]


def test_the_interface_of_the_spec_wins_and_without_any_none_is_set(load: Any) -> None:
    named = rendezvous.launches(load(nodes={"interface": "bond0"}), "vision", MEMBERS)
    assert {one["env"]["NCCL_SOCKET_IFNAME"] for one in named.values()} == {"bond0"}
    bare = rendezvous.launches(load(), "vision", [Member("node-a", "10.0.0.9"), Member("node-b", "10.0.0.10")])
    assert "NCCL_SOCKET_IFNAME" not in bare["node-a"]["env"]


def test_programs_and_modules_are_launched_too(load: Any) -> None:
    def tail(command: list[str]) -> list[str]:
        spec = load(command=command)
        argv = rendezvous.launches(spec, "vision", MEMBERS)["node-a"]["argv"]
        return argv[argv.index("--rdzv-endpoint=10.0.0.10:29511") + 1 :]

    assert tail(["python", "-m", "pkg.train", "-v"]) == ["-m", "pkg.train", "-v"]
    assert tail(["./train.sh", "a"]) == ["--no-python", "./train.sh", "a"]


def test_torch_itself_ranks_the_boxes_as_the_launch_says() -> None:
    """What the launch calls the leader must be what torch makes rank 0: its own order decides."""
    dynamic = pytest.importorskip("torch.distributed.elastic.rendezvous.dynamic_rendezvous")
    chance = random.Random(7)
    for _turn in range(50):
        members = [Member(f"b{n}", f"10.{chance.randrange(256)}.0.{chance.randrange(256)}") for n in range(4)]
        ours = rendezvous.in_order({"rendezvous": "c10d"}, members)
        theirs = sorted(dynamic._NodeDesc(member.address, chance.randrange(9999), 0) for member in members)
        assert [member.address for member in ours] == [node.addr for node in theirs]


def test_torchrun_understands_the_command(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By torchrun's own parser, with the environment of the box: the values arrive where they are meant to."""
    run = pytest.importorskip("torch.distributed.run")
    launch = rendezvous.launches(load(nodes={"rendezvous": "static"}), "vision", MEMBERS)["node-b"]
    for name, value in launch["env"].items():
        monkeypatch.setenv(name, value)
    parsed = run.parse_args(launch["argv"][3:])
    config, _program, arguments = run.config_from_args(parsed)
    assert (config.min_nodes, config.max_nodes, config.nproc_per_node, config.max_restarts) == (2, 2, 1, 0)
    assert (config.rdzv_endpoint, config.rdzv_configs["rank"], config.local_addr) == ("10.0.0.9:29500", 1, "10.0.0.10")
    assert int(config.rdzv_configs["timeout"]) == 1800
    assert arguments[-3:] == ["train.py", "--epochs", "3"]


def test_the_run_record_says_that_boxes_train_together(load: Any) -> None:
    spec = load()
    known = {"name": "node-a", "tenant_root": "/w", "python": "/usr/bin/python3"}
    record = run_record(spec, {"generation": 1, "provider_id": "x"}, "vision", known)
    assert on_the_box.check_run(record)["nodes"] == spec["nodes"]
    assert on_the_box.check_run(dict(record, nodes={}))["nodes"] == {}


# --- the nodes of one Slurm job ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["c10d", "static"])
def test_nodes_of_one_job_meet_where_the_job_says(load: Any, kind: str) -> None:
    spec = load(parts=[], nodes={"count": 4, "nproc_per_node": 8, "rendezvous": kind, "interface": "ib0"})
    launch = rendezvous.launch_in_job(spec, "vision")
    assert {"--nnodes=4", "--nproc-per-node=8", f"--rdzv-backend={kind}"} <= set(launch["argv"])
    assert not [word for word in launch["argv"] if "endpoint" in word or "master" in word]
    conf = {"c10d": "join_timeout=1800,read_timeout=300", "static": "timeout=1800"}[kind]
    assert launch["env"] == {"PET_RDZV_CONF": conf, "GLOO_SOCKET_IFNAME": "ib0", "NCCL_SOCKET_IFNAME": "ib0"}
    known = {"project": "vision", "box": "b1", "generation": 1, "provider_id": "7", "python": "/usr/bin/python3"}
    run = dict(known, run_id="wide", spec_sha256=spec["spec_sha256"], code_sha256="b" * 64, workdir="/")
    run.update(command=["python"], cells=spec["cells"], nodes=spec["nodes"])
    assert box_launch.check(launch, on_the_box.check_run(run)) == launch
