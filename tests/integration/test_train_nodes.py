# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Two boxes train as one: all of them start or none does, by the real playbooks, sshd, supervisors and torch over gloo.

The boxes are sshds on two loopback addresses, each with a tenant root of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.box import attempt, records
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from loopback_sshd import LoopbackBox, loopback_box
from ports import free_port
from supervised_box import SupervisedBox, supervised_box, wait_for

from gpu_tenant.marketplace.testing import running_marketplace

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
TRAINER = Path(__file__).with_name("node_trainer.py")
NODES = {"node-a": "127.0.0.2", "node-b": "127.0.0.3"}
FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
Done = subprocess.CompletedProcess[str]
PLAY_S = 900.0


@dataclass
class Node:
    name: str
    ssh: LoopbackBox
    box: SupervisedBox

    def record(self, name: str) -> dict[str, Any]:
        return json.loads((self.box.root / "runs" / "together" / name).read_text())

    def exit_of(self, number: int) -> dict[str, Any]:
        return attempt.read(self.box.paths(number, "main", "together").exit, "exit")

    def await_step(self, number: int) -> None:
        """Attempt ``number`` trains."""

        def trains() -> bool:
            cell = self.box.cell("main", "together")
            return bool(cell["attempt"] == number and cell["step"])

        wait_for(f"{self.name} to train in attempt {number}", trains)

    @property
    def attempts(self) -> list[int]:
        return self.box.layout.attempt_numbers("together", "main")


class Team:
    def __init__(self, folder: Path, nodes: list[Node]) -> None:
        self.folder = folder
        self.nodes = {node.name: node for node in nodes}
        self.results = folder / "results"
        self.release = folder / "release"
        self.port = free_port("127.0.0.2")
        (folder / "job").mkdir()
        shutil.copy(TRAINER, folder / "job" / "train.py")
        self.spec = folder / "job" / "run.yml"
        self.spec.write_text(yaml.safe_dump(self._spec()))
        (folder / "profiles.yml").write_text("plugin: tenant.gpu.profiles\n")
        (folder / "start.yml").write_text(
            yaml.safe_dump([{"hosts": "all", "gather_facts": False, "roles": ["tenant.gpu.train"]}])
        )
        self.write_hosts()

    def _spec(self) -> dict[str, Any]:
        return {
            "id": "together",
            "command": ["python", "train.py", str(self.release)],
            "artifacts": [
                {"glob": "checkpoints/step-*/**", "role": "checkpoint", "loader": "dcp"},
                {"glob": "checkpoints/step-*/.metadata", "role": "checkpoint", "loader": "dcp"},
                {"glob": "metrics.json", "role": "metrics", "loader": "json"},
            ],
            "parts": list(NODES),
            "nodes": {"port": self.port, "backend": "gloo", "interface": "lo", "wait_s": 300},
            "resources": {"limits": {"min_free_bytes": 0, "min_free_inodes": 0}},
        }

    def write_hosts(self, group: str = "ssh", **of_b: Any) -> None:
        """The inventory; ``of_b`` are further variables of node-b."""
        hosts = {}
        for node in self.nodes.values():
            mine = {"platform_data_dir": str(node.box.root.parent)} if group == "ssh" else {}
            hosts[node.name] = {**node.ssh.host_variables(**mine), **(of_b if node.name == "node-b" else {})}
        variables = {
            "tenant_project": "vision",
            "tenant_run": str(self.spec),
            "tenant_state_dir": str(self.folder / "state"),
            "tenant_results_dir": str(self.results),
            "platform_python": sys.executable,
            "provision_require_cuda": False,
            # Both import torch in it.
            "train_proof_within_s": 300,
        }
        (self.folder / "hosts.yml").write_text(json.dumps({group: {"hosts": hosts, "vars": variables}}))

    def play(self, playbook: str, *words: str, forks: int = 2) -> Done:
        sources = ["-i", str(self.folder / "profiles.yml"), "-i", str(self.folder / "hosts.yml")]
        command = [str(Path(sys.executable).parent / "ansible-playbook"), playbook, *sources, *words]
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.folder / "cp")}
        environment["ANSIBLE_FORKS"] = str(forks)
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PLAY_S, check=False
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stdout[-6000:] + done.stderr[-2000:]
        return done

    def played(self, playbook: str, *words: str, forks: int = 2) -> dict[str, int]:
        """How many tasks changed something on each box; a failed play fails the test."""
        done = self.play(playbook, *words, forks=forks)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        told = re.findall(r"^(node-.)\s+:.*changed=(\d+).*failed=0", done.stdout, re.MULTILINE)
        return {name: int(changed) for name, changed in told}

    def refused(self, *words: str) -> dict[str, dict[str, Any]]:
        """What each box said when the train role refused; nothing runs on any of them afterwards."""
        done = self.play(str(self.folder / "start.yml"), *words)
        assert done.returncode != 0, done.stdout[-3000:]
        found = {}
        for box, text in re.findall(r"^(?:fatal: )?\[(node-.)\]: FAILED! => (\{.*\})$", done.stdout, re.MULTILINE):
            failure = json.loads(text).get("failure")
            if failure and "starts on no box" in failure["what"]:
                found[box] = failure
        assert found, done.stdout[-5000:]
        for node in self.nodes.values():
            assert node.box.cell("main", "together")["liveness"] != "alive"
            assert node.box.run("together")["awaits_launch"] is True
        return found


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("nodes")
    with contextlib.ExitStack() as stack:
        nodes = []
        for name, address in NODES.items():
            (folder / name).mkdir()
            box = stack.enter_context(supervised_box(folder / name))
            nodes.append(Node(name, stack.enter_context(loopback_box(address=address)), box))
        team = Team(folder, nodes)
        team.played("playbooks/deploy.yml")
        yield team


@pytest.fixture(autouse=True)
def same_inventory(team: Team) -> Iterator[None]:
    yield
    team.write_hosts()


def no_attempts(team: Team) -> bool:
    return not any(node.attempts for node in team.nodes.values())


# --- refused --------------------------------------------------------------------------------------------------------


def test_a_deployed_run_of_several_boxes_is_not_started_by_one_of_them(team: Team) -> None:
    box = team.nodes["node-a"].box
    code, answer = box.ask("start", "--run", "together")
    assert code == 10
    assert "works on several boxes and was not launched" in answer["error"]
    box.verb("resume-all")
    box.verb("start")
    assert no_attempts(team)


def test_boxes_of_platforms_without_a_network_are_refused_before_anything_is_touched(team: Team) -> None:
    # The addresses lead nowhere: whoever connected would be told so instead.
    team.write_hosts("autodl")
    done = team.play("playbooks/train.yml", "-e", "ansible_port=9")
    assert done.returncode != 0
    shown = " ".join(done.stdout.split())
    assert "autodl gives its boxes mapped ports behind a NAT" in shown
    assert "nothing was rented and no box was touched" in shown
    assert '"kind": "config"' in shown
    assert "unreachable=0" in shown


def test_a_run_over_vast_boxes_is_refused_before_money_is_spent(team: Team, tmp_path: Path) -> None:
    with running_marketplace(engine="none") as market:
        (tmp_path / "key").write_text(market.api_key)
        variables = {
            "tenant_project": "vision",
            "tenant_run": str(team.spec),
            "tenant_state_dir": str(tmp_path / "state"),
            "vast_api_url": market.url,
            "vast_api_key_file": str(tmp_path / "key"),
            "provision_price_cap": 0.6,
        }
        hosts = json.dumps({"vast": {"hosts": {name: {} for name in NODES}, "vars": variables}})
        (team.folder / "hosts.yml").write_text(hosts)
        done = team.play("playbooks/train.yml")
        assert market.state()["instances"] == []
    assert done.returncode != 0
    shown = " ".join(done.stdout.split())
    assert "node-a: vast gives its boxes mapped ports behind a NAT and no network between them" in shown
    assert "nothing was rented and no box was touched" in shown
    assert "take boxes of a platform with a private network" in shown


def test_one_box_alone_is_refused(team: Team) -> None:
    said = team.refused("-l", "node-a")
    assert "node-b: this command was not run on it" in said["node-a"]["what"]
    assert no_attempts(team)


def test_a_port_that_is_taken_is_refused_by_every_box_and_names_the_one(team: Team) -> None:
    with socket.create_server(("127.0.0.2", team.port)):
        # So long the other box knocks in vain.
        said = team.refused("-e", "train_proof_within_s=20")
    assert set(said) == set(NODES)
    for failure in said.values():
        assert f"node-a: port {team.port} cannot be listened on: Address already in use" in failure["what"]
    assert no_attempts(team)


@contextlib.contextmanager
def another_torch(node: Node, folder: Path) -> Iterator[None]:
    (folder / "torch.py").write_text("__version__ = '2.12.0+cpu'\nclass version:\n    cuda = None\n")
    record = node.record("run.json")
    changed = dict(record, env={**record["env"], "PYTHONPATH": f"{folder}:{record['env']['PYTHONPATH']}"})
    node.box.verb("register", "--run-file", "-", stdin=json.dumps(changed))
    try:
        yield
    finally:
        node.box.verb("register", "--run-file", "-", stdin=json.dumps(record))


@contextlib.contextmanager
def other_code(node: Node) -> Iterator[None]:
    (script,) = (node.box.root / "code").glob("*/train.py")
    before = script.read_bytes()
    script.write_bytes(before + b"# mine\n")
    try:
        yield
    finally:
        script.write_bytes(before)


@contextlib.contextmanager
def sealed(node: Node) -> Iterator[None]:
    node.box.verb("seal")
    try:
        yield
    finally:
        node.box.verb("unseal")


@pytest.fixture(scope="module")
def told_of_b(team: Team, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each box was told when all was unlike on node-b: one play, for each costs seconds; that each reason suffices
    alone: tests/unit/nodes/test_node_group.py."""
    node = team.nodes["node-b"]
    off = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": "+90s"} if FAKETIME else {}
    with contextlib.ExitStack() as stack:
        box = stack.enter_context(loopback_box(address="127.0.0.3", environment=off))
        # An address of somebody else, as the inventory gives it for a box behind a NAT.
        team.write_hosts(**box.host_variables(train_node_address="192.0.2.7"))
        stack.callback(team.write_hosts)
        for unlike in (another_torch(node, tmp_path_factory.mktemp("torch")), other_code(node), sealed(node)):
            stack.enter_context(unlike)
        said = team.refused()
    assert set(said) == set(NODES)
    assert no_attempts(team)
    return {name: failure["what"] for name, failure in said.items()}


def test_all_that_is_unlike_on_a_box_is_told_at_once_by_name(told_of_b: dict[str, str]) -> None:
    for what in told_of_b.values():
        assert "node-b: its code is not what was deployed: train.py has other bytes" in what
        assert "node-b: it is sealed" in what
        assert f"node-b: it has torch 2.12.0+cpu, node-a has {torch.__version__}" in what
        assert "node-b: 192.0.2.7 is not an address of this box itself" in what


@pytest.mark.skipif(FAKETIME is None, reason="NOT RUN: libfaketime is not installed")
def test_a_clock_that_is_off_is_refused_with_the_bound(told_of_b: dict[str, str]) -> None:
    told = re.search(r"node-b: its clock is (\d+\.\d) s off that of node-a .*; 5 s are allowed", told_of_b["node-a"])
    assert told is not None, told_of_b["node-a"]
    assert 80 < float(told.group(1)) < 100


def test_when_one_box_cannot_start_the_one_that_has_started_is_stopped(team: Team) -> None:
    with loopback_box(("tmux",), address="127.0.0.3") as without:
        team.write_hosts(**without.host_variables(platform_detach="tmux"))
        said = team.refused()
    assert set(said) == set(NODES)
    for failure in said.values():
        assert "node-b: tmux is not on this box" in failure["what"]
    assert "was stopped" in said["node-a"]["safe"]
    node = team.nodes["node-a"]
    assert node.attempts == [1]
    assert node.exit_of(1)["stop_asked"] is True
    # A reboot must not bring it back alone either.
    node.box.verb("resume-all")
    assert node.attempts == [1]


# --- together -------------------------------------------------------------------------------------------------------


def test_two_boxes_train_together_lose_one_go_on_and_end_with_one_checkpoint(team: Team) -> None:
    node_a, node_b = team.nodes.values()
    # One fork: the boxes must not need to be visited at the same time.
    changed = team.played(str(team.folder / "start.yml"), forks=1)
    assert set(changed) == set(NODES)
    launches = [node.record("launch.json") for node in (node_a, node_b)]
    assert launches[0]["argv"] == launches[1]["argv"]
    assert f"--rdzv-endpoint=127.0.0.2:{team.port}" in launches[0]["argv"]
    assert [launch["leader"] for launch in launches] == [True, False]
    assert [launch["env"]["GLOO_SOCKET_IFNAME"] for launch in launches] == ["lo", "lo"]
    number = {node.name: max(node.attempts, default=0) for node in (node_a, node_b)}
    for node in (node_a, node_b):
        node.await_step(number[node.name])
    assert team.played(str(team.folder / "start.yml")) == dict.fromkeys(NODES, 0)

    # The box of rank 1 dies with everything on it and comes back by itself.
    node_b.box.kill_everything()
    wait_for("node-a to see it", lambda: node_a.exit_of(number["node-a"]))
    assert node_a.exit_of(number["node-a"])["failure"]["class"] == "peer_lost"
    node_b.box.verb("resume-all")
    for node in (node_a, node_b):
        node.await_step(number[node.name] + 1)
        assert node.box.cell("main", "together")["resumed_from_step"] >= 20

    # The box of rank 0, which holds the rendezvous store.
    node_a.box.kill_everything()
    wait_for("node-b to see it", lambda: node_b.exit_of(number["node-b"] + 1))
    assert node_b.exit_of(number["node-b"] + 1)["failure"]["class"] == "peer_lost"
    node_a.box.verb("resume-all")
    node_a.await_step(number["node-a"] + 2)

    team.release.touch()
    for node in (node_a, node_b):
        node.box.await_state("done", "together")
    # Written once, by rank 0: that the other box has none is no fault of it.
    assert not list(node_b.box.root.glob("runs/together/main/a*/out/metrics.json"))

    team.played("playbooks/harvest.yml")
    store = StateStore(str(team.folder / "state"))
    for name in NODES:
        receipt = records.read_record(store.receipt_path("vision", "together", name, 1), "receipt")
        assert (receipt["complete"], receipt["waits_for"]) == (True, [])
    checkpoints = team.results / "vision/together/whole/main/checkpoints"
    newest = max(checkpoints.iterdir(), key=lambda path: int(path.name[5:]))
    state = {"weights": torch.zeros(8, 8)}
    dcp.load(state, checkpoint_id=str(newest), no_dist=True)
    step = int(newest.name[5:])
    assert torch.equal(state["weights"], torch.arange(64.0).reshape(8, 8) + step)
    assert (
        step
        == json.loads(next(team.results.glob("vision/together/node-a/g1/main/a*/out/metrics.json")).read_text())["step"]
    )
