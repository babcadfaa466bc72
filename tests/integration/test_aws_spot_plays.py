# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A Spot Instance's life by plain ``ansible-playbook`` and the modules of amazon.aws, on a moto server. moto has no
machine, so that an sshd on the loopback plays the one that was rented."""

from __future__ import annotations

import getpass
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ec2_server import REGION, SECRET_KEY, Ec2Server, ec2_server
from loopback_sshd import LoopbackBox, loopback_box

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.integration
BOX = "spot-a"
PLAY_S = 900.0
TRAINER = """\
import json, os
with open(os.path.join(os.environ["TENANT_OUTPUT_DIR"], "model.json"), "w") as stream:
    json.dump({"done": True}, stream)
"""
SPEC: dict[str, Any] = {
    "id": "spots",
    "command": ["python", "train.py"],
    "artifacts": [{"glob": "model.json", "role": "metrics", "loader": "json"}],
    "resources": {"disk_gb": 30},
}


class Team:
    def __init__(self, folder: Path, ec2: Ec2Server, box: LoopbackBox) -> None:
        self.folder, self.ec2, self.box = folder, ec2, box
        self.state_dir = folder / "state"
        self.write("job/train.py", TRAINER)
        self.write("job/run.yml", yaml.safe_dump(SPEC))
        self.write("inventory/hosts.yml", yaml.safe_dump({"aws_spot": {"hosts": {BOX: {}}}}))
        self.write("inventory/group_vars/aws_spot.yml", yaml.safe_dump(self._variables()))
        self.write("inventory/profiles.yml", "plugin: tenant.gpu.profiles\n")

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def _variables(self) -> dict[str, Any]:
        data = self.box.home / "data"
        data.mkdir()
        return {
            "tenant_project": "plain",
            "tenant_run": str(self.folder / "job/run.yml"),
            "tenant_state_dir": str(self.state_dir),
            "tenant_results_dir": str(self.state_dir / "results"),
            "aws_spot_api_url": self.ec2.url,
            "aws_spot_region": REGION,
            "ansible_ssh_private_key_file": str(self.box.key),
            "provision_ssh_public_key_file": str(self.box.key.with_name("client_key.pub")),
            "provision_price_cap": 0.6,
            "provision_require_cuda": False,
            "provision_instance_types": ["g5.xlarge", "g4dn.xlarge"],
            "provision_ami": self.ec2.image()["ImageId"],
            "provision_security_groups": [self.ec2.group()],
            "provision_ssh_port": self.box.port,
            "platform_ssh_user": getpass.getuser(),
            "platform_python": sys.executable,
            "platform_data_dir": str(data),
            # The box is this very machine, whose own start is none of our business.
            "platform_reboot_hook": "",
            "platform_spot": {"available": True, "grace_s": 120, "signal": ""},
        }

    def sources(self) -> list[str]:
        return ["-i", str(self.folder / "inventory")]

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        control = {"ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.box.folder / "cp"), "ANSIBLE_FORCE_COLOR": "0"}
        return {**kept, **control, **self.ec2.environment()}

    def run(self, name: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "ansible-playbook"), f"playbooks/{name}.yml", "-l", "aws_spot"]
        return subprocess.run(
            [*command, *self.sources(), *words],
            cwd=ROOT,
            env={**self.environment(), **environment},
            capture_output=True,
            text=True,
            timeout=PLAY_S,
            check=False,
        )

    def play(self, name: str, *words: str) -> str:
        done = self.run(name, *words)
        said = done.stdout + done.stderr
        assert re.search(rf"^{BOX}\s.*failed=0", done.stdout, re.MULTILINE), said[-6000:]
        assert "DEPRECAT" not in said
        assert SECRET_KEY not in said
        return " ".join(said.split())

    def refused(self, name: str, *words: str, **environment: str) -> str:
        done = self.run(name, *words, **environment)
        said = done.stdout + done.stderr
        assert re.search(rf"^{BOX}\s.*failed=1", done.stdout, re.MULTILINE), said[-6000:]
        assert "Traceback" not in said
        assert SECRET_KEY not in said
        return " ".join(said.split())

    def approve(self) -> None:
        words = ["approve", "destroy", BOX, "--approver", "Ada", "--reason", "results are home", *self.sources()]
        given = subprocess.run(
            [sys.executable, "-m", "gpu_tenant", *words],
            capture_output=True,
            text=True,
            check=False,
            env=self.environment(),
        )
        assert given.returncode == 0, given.stdout + given.stderr


@pytest.fixture(scope="module")
def server() -> Iterator[Ec2Server]:
    with ec2_server() as served:
        yield served


@pytest.fixture
def team(tmp_path: Path, server: Ec2Server) -> Iterator[Team]:
    server.reset()
    with loopback_box() as box:
        yield Team(tmp_path, server, box)


def tags_of(row: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in row.get("Tags", [])}


def test_the_life_of_a_spot_instance(team: Team) -> None:
    planned = team.play("provision", "--check")
    assert '"max_price": 0.5933' in planned, "the cap, less what the disk may cost"
    assert team.ec2.instances() == []

    # The answer to the request is lost: it is sent again, and EC2 knows its token.
    team.ec2.refused = {"g5.xlarge": "InsufficientInstanceCapacity"}
    team.ec2.lost["RequestSpotInstances"] = 1
    team.play("provision")
    (rented,) = team.ec2.instances()
    assert (rented["InstanceType"], rented["InstanceLifecycle"]) == ("g4dn.xlarge", "spot")
    record = StateStore(str(team.state_dir)).read_box("plain", BOX, 1)
    assert record is not None
    assert (record["platform"], record["provider_id"]) == ("aws_spot", rented["InstanceId"])
    assert record["admitted_at"] is not None
    (request,) = team.ec2.client.describe_spot_instance_requests()["SpotInstanceRequests"]
    assert (request["Type"], request["InstanceInterruptionBehavior"]) == ("one-time", "terminate")
    assert float(request["SpotPrice"]) <= 0.6
    assert tags_of(rented)["gpu-tenant-stamp"] == record["stamp"] == tags_of(request)["gpu-tenant-stamp"]
    (volume,) = team.ec2.client.describe_volumes()["Volumes"]
    assert tags_of(volume)["gpu-tenant-stamp"] == record["stamp"]

    team.play("site", "-e", "train_wait_s=600")
    (home,) = (team.state_dir / "results").rglob("model.json")
    assert json.loads(home.read_text()) == {"done": True}
    assert [one["InstanceId"] for one in team.ec2.instances()] == [rented["InstanceId"]], "found again, and not parked"
    assert team.ec2.asked["RequestSpotInstances"] == 3, "one refused, one lost, one sent again"

    said = team.refused("teardown")
    assert "gate" in said
    assert len(team.ec2.instances()) == 1
    team.approve()
    team.play("teardown")
    assert team.ec2.instances() == []
