# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Boxes of the process engine where the kernel refuses namespaces: process trees with a home of their own."""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from marketplace_tools import DEADLINE_S, wait_until

from gpu_tenant.marketplace.engines.base import BoxSpec, Card, free_ports
from gpu_tenant.marketplace.engines.process import ProcessEngine

pytestmark = pytest.mark.integration


class Box:
    def __init__(self, directory: Path) -> None:
        self.engine = ProcessEngine(refusal="the test says so")
        self.engine.check()
        self.key = directory / "id_ed25519"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        self.spec = BoxSpec(
            box_id=1,
            directory=directory / "a box",
            ports=free_ports(1, ()),
            card=Card("NVIDIA GeForce RTX 4090", 24564, 1, "550.54.14", "12.4"),
            keys=(self.key.with_suffix(".pub").read_text(),),
            environment={"TENANT_STAMP": "a stamp"},
            onstart='echo "$TENANT_STAMP" >>"$HOME/starts"',
        )
        self.engine.create(self.spec)

    def ssh(self, command: str, *options: str) -> subprocess.CompletedProcess[str]:
        words = ["ssh", "-F", "none", "-i", str(self.key), "-p", str(self.spec.ports[0]), "-o", "BatchMode=yes"]
        words += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        return subprocess.run(
            [*words, *options, f"{getpass.getuser()}@127.0.0.1", command],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    made.engine.start(made.spec)
    yield made
    made.engine.close()


def test_the_engine_says_that_its_boxes_are_not_isolated() -> None:
    said = ProcessEngine(refusal="unshare: Operation not permitted").describe()
    assert said["isolated"] is False
    assert "Operation not permitted" in said["isolation"]


def test_home_and_workspace_lie_in_the_boxs_own_directory(box: Box) -> None:
    disk = box.spec.directory / "disk"
    said = box.ssh('pwd; echo "$HOME"; echo "$WORKSPACE"; echo "$TMPDIR"; echo ~').stdout.splitlines()
    assert said == [
        str(disk / "root"),
        str(disk / "root"),
        str(disk / "workspace"),
        str(disk / "tmp"),
        str(disk / "root"),
    ]


def test_onstart_environment_and_stand_ins_are_there(box: Box) -> None:
    wait_until(lambda: box.ssh("cat starts").stdout == "a stamp\n")
    assert box.ssh("nvidia-smi -L").stdout.startswith("GPU 0: NVIDIA GeForce RTX 4090")
    assert box.ssh("echo $TENANT_STAMP").stdout == "a stamp\n"


def test_a_stop_ends_also_what_left_its_session(box: Box) -> None:
    number = box.ssh("setsid sh -c 'sleep 600 & sleep 600' >/dev/null 2>&1 </dev/null & echo $!").stdout.strip()
    assert Path("/proc", number).exists()
    box.engine.stop(1)
    assert not Path("/proc", number).exists()
    assert box.ssh("true").returncode == 255
    box.engine.start(box.spec)
    wait_until(lambda: box.ssh("cat starts").stdout.split("\n")[:-1] == ["a stamp"] * 2)


def test_destroy_removes_the_directory(box: Box) -> None:
    box.engine.destroy(box.spec)
    assert not box.spec.directory.exists()
