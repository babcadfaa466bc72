# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Two playbooks never work on one box at once, and a killed one is in nobody's way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.leases import FileLeases
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from tenant_plays import CORES, ROOT, words

from gpu_tenant import hosts, lease_holding

pytestmark = pytest.mark.integration

BOXES = [f"box-{number}" for number in range(1, 17)]
DEADLINE_S = 600.0
SPEC = """\
id: leased
command: [python, train.py]
artifacts: [{glob: model.pt, role: other, loader: none}]
"""
ACT = """\
- name: Act
  hosts: all
  gather_facts: false
  connection: local
  roles: [tenant.gpu.box]
  tasks:
    - name: Say the epoch
      ansible.builtin.debug:
        msg: "{{ ansible_facts['box_lease'] }}"
"""
# Goes on until the test makes the file.
HOLD = (
    ACT
    + """\
    - name: Hold
      ansible.builtin.wait_for: {path: "{{ playbook_dir }}/let-go", timeout: 600, sleep: 1}
      delegate_to: localhost
      run_once: true
"""
)


class Team:
    """Boxes of the platform ssh whose port nobody listens on: a role that got past the lease would say unreachable."""

    def __init__(self, folder: Path, core: str) -> None:
        self.folder, self.core = folder, core
        self.started: list[subprocess.Popen[str]] = []
        self.store = StateStore(str(folder / "state"))
        self.leases = FileLeases(self.store)
        (folder / "train.py").write_text("")
        (folder / "run.yml").write_text(SPEC)
        (folder / "hold.yml").write_text(HOLD)
        (folder / "act.yml").write_text(ACT)
        (folder / "profiles.yml").write_text("plugin: tenant.gpu.profiles\n")
        variables = {
            "tenant_project": "vision",
            "tenant_run": str(folder / "run.yml"),
            "tenant_state_dir": str(folder / "state"),
            "tenant_results_dir": str(folder / "results"),
            "ansible_host": "127.0.0.1",
        }
        ports = {box: {"ansible_port": port} for port, box in enumerate(BOXES, start=1)}
        inventory = {"ssh": {"hosts": ports, "vars": variables}}
        (folder / "hosts.yml").write_text(json.dumps(inventory))

    def start(self, playbook: str, limit: str, *more: str) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
        }
        program = str(ROOT / self.core / "bin" / "ansible-playbook")
        process = subprocess.Popen(
            [program, "-i", "profiles.yml", "-i", "hosts.yml", playbook, "-l", limit, *more],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(process)
        return process

    def play(self, playbook: str, limit: str, *more: str) -> subprocess.CompletedProcess[str]:
        process = self.start(playbook, limit, *more)
        output = process.communicate(timeout=DEADLINE_S)[0]
        return subprocess.CompletedProcess(process.args, process.returncode, output, "")

    def runner(self, *arguments: str) -> dict[str, Any]:
        """The last line that ``gpu-tenant --json`` printed."""
        command = [sys.executable, "-m", "gpu_tenant", *arguments, "-i", "profiles.yml", "-i", "hosts.yml", "--json"]
        known = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        done = subprocess.run(
            command, cwd=self.folder, env=known, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        assert done.returncode == found["exit_code"], done.stdout + done.stderr
        return found

    def holds(self, process: subprocess.Popen[str], box: str) -> bool:
        found = self.leases.read("vision", box)
        return found is not None and process.pid in [holder.pid for holder in found.holders]

    def files(self) -> list[Path]:
        """Without caches, and without what a keeper is about to give its name: it renews at any moment."""
        found = [path for path in self.folder.rglob("*") if path.is_file() and path.parent.name != "cache"]
        return sorted(path for path in found if path.suffix != ".tmp")

    def let_go(self) -> None:
        (self.folder / "let-go").touch()

    def history(self) -> list[dict[str, Any]]:
        return [line for line in Journal(self.store).lines() if line["verb"] == "lease_taken_over"]


def until(process: subprocess.Popen[str], what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < deadline
        assert not process.poll(), process.communicate()[0]
        time.sleep(0.05)


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    made = Team(tmp_path, CORES[0])
    yield made
    # Also what a killed playbook left at work ends by this.
    made.let_go()
    for process in made.started:
        process.kill()
        process.communicate()


def test_the_second_playbook_is_told_who_is_at_work_until_it_takes_over(team: Team) -> None:
    first = team.start("hold.yml", "all")
    until(first, lambda: all(team.holds(first, box) for box in BOXES))
    held = team.leases.read("vision", "box-1")
    assert held is not None
    before = team.files()

    refused = team.play(str(ROOT / "playbooks/train.yml"), "box-1")
    assert refused.returncode == 2
    told = words(refused)
    assert f"process {first.pid} of" in told
    assert f"-e box_lease_from={held.nonce}" in told
    assert "unreachable=0" in told
    looked = team.play("act.yml", "box-1", "--check")
    assert team.leases.read("vision", "box-1") == held
    assert looked.returncode == 0, looked.stdout
    assert team.files() == before

    took = team.play("act.yml", "box-1", "-e", f"box_lease_from={held.nonce}")
    assert took.returncode == 0, took.stdout
    [line] = team.history()
    assert (line["why"], line["box"], line["holders"][0]["pid"]) == ("taken", "box-1", first.pid)
    now = team.leases.read("vision", "box-1")
    assert now is not None
    assert now.epoch > held.epoch
    assert [holder.pid for holder in now.displaced] == [first.pid]

    team.let_go()
    assert "changed=0" in first.communicate(timeout=DEADLINE_S)[0]
    # The keeper sees the end and gives back what was not taken away.
    until(first, lambda: all(not team.holds(first, box) for box in BOXES))


def test_what_a_killed_playbook_held_is_free_at_once(team: Team) -> None:
    team.core = CORES[-1]
    first = team.start("hold.yml", "box-1,box-2")
    until(first, lambda: team.holds(first, "box-1") and team.holds(first, "box-2"))
    epoch = team.leases.read("vision", "box-1").epoch
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=DEADLINE_S)
    again = team.play("act.yml", "box-1,box-2")
    assert again.returncode == 0, again.stdout
    assert "changed=0" in again.stdout
    assert team.leases.read("vision", "box-1").epoch > epoch


def test_a_playbook_joins_the_lease_of_the_runner_that_started_it(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    box = hosts.BoxHost("box-1", {"tenant_project": "vision", "tenant_state_dir": team.store.root})
    with lease_holding.holding([box], "gpu-tenant go") as nonce:
        stranger = team.play("act.yml", "box-1")
        assert "'gpu-tenant go' is at work on it" in words(stranger)
        monkeypatch.setenv("GPU_TENANT_LEASE", nonce)
        ours = team.play("act.yml", "box-1")
        assert ours.returncode == 0, ours.stdout
        assert str(team.leases.read("vision", "box-1").epoch) in ours.stdout
        monkeypatch.delenv("GPU_TENANT_LEASE")
        told = team.runner("go", "run.yml", "-l", "box-1")
        assert told["exit_code"] == 24
        assert f"-e box_lease_from={nonce}" in told["msg"]
    assert team.leases.holder_words("vision", "box-1") == ""
