# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""An instance's life by plain ``ansible-playbook``, as ubuntu: planned, rented beside its file system, trained on,
lost, replaced by one that goes on from the file system, harvested, and terminated through the gate."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.lambda_cloud.actions import VmAccount
from ansible_collections.tenant.gpu.plugins.module_utils.lambda_cloud.api import LambdaClient
from ansible_collections.tenant.gpu.plugins.module_utils.lambda_cloud.desired import Desire, converge
from ansible_collections.tenant.gpu.plugins.module_utils.lambda_cloud.rental import VmOrder
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from team_folder import ENDED_WITHIN_S, ROOT, SIDES, TeamFolder

from gpu_tenant.marketplace.lambda_cloud.terms import FILE, number_of
from gpu_tenant.marketplace.testing import Handle, running_marketplace

pytestmark = pytest.mark.integration
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a login of its own, and a disk beside the box's, need root")

BOX, TYPE, REGION = "vm-a", "gpu_1x_a6000", "us-west-1"
# The first attempt saves and then stands until its instance is lost; the next one goes on from there and ends.
TRAINER = """\
import json, os, signal
from small_trainer import note, resumed_step, save

assert os.getuid() == 1000, "not ubuntu"
step = resumed_step()
if not step:
    for folder in ("TENANT_CHECKPOINT_DIR", "TENANT_DURABLE_CHECKPOINT_DIR"):
        save(os.path.join(os.environ[folder], "step-0000000001.pt"), 1)
    note(step=1, steps=2)
    signal.pause()
with open(os.path.join(os.environ["TENANT_OUTPUT_DIR"], "model.json"), "w") as stream:
    json.dump({"resumed_from": step}, stream)
"""
SPEC: dict[str, Any] = {
    "id": "vms",
    "command": ["python", "train.py"],
    "artifacts": [{"glob": "model.json", "role": "metrics", "loader": "json"}],
    "resources": {"gpu_count": 1, "disk_gb": 10},
}


class Team(TeamFolder):
    def __init__(self, folder: Path, market: Handle) -> None:
        super().__init__(folder, market, [BOX], SPEC, TRAINER, "", platform="lambda")
        self.write("job/small_trainer.py", (ROOT / "tests/integration/small_trainer.py").read_text())
        made = self.ask("POST", "/filesystems", {"name": "results", "region": REGION})
        self.file_system = market.state_dir / "volumes" / str(number_of(FILE, made["id"]))
        ours = {
            "provision_instance_types": [TYPE],
            "provision_file_systems": ["results"],
            "provision_price_cap": 1.0,
            # A disk beside the box's, and of this machine: no network disk can be mounted here.
            "platform_shared_fs": False,
        }
        self.write("inventory/group_vars/lambda.yml", yaml.safe_dump(ours))

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return self.market.request(method, SIDES["lambda"] + path, body)["data"]

    def play(self, name: str, *words: str, ok: bool = True) -> str:
        done = self.play_on("lambda", name, *words)
        said = done.stdout + done.stderr
        assert bool(re.search(rf"^{BOX}\s.*failed=0", done.stdout, re.MULTILINE)) is ok, said[-6000:]
        assert "DEPRECAT" not in said
        assert self.market.api_key not in said
        return " ".join(said.split())

    def vms(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("GET", "/instances")
        return [one for one in found if one["status"] != "terminating"]

    def await_durable_checkpoint(self) -> None:
        deadline = time.monotonic() + ENDED_WITHIN_S
        while not list(self.file_system.rglob("step-*.pt")):
            assert time.monotonic() < deadline, [
                path.read_text() for path in (self.market.state_dir / "boxes").rglob("run.log")
            ]
            time.sleep(0.05)

    def terminate_behind_our_back(self) -> None:
        (vm,) = self.vms()
        self.ask("POST", "/instance-operations/terminate", {"instance_ids": [vm["id"]]})
        deadline = time.monotonic() + ENDED_WITHIN_S
        while self.ask("GET", "/instances"):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def approve(self) -> None:
        words = ["approve", "destroy", BOX, "--approver", "Ada", "--reason", "results are home", *self.sources()]
        given = subprocess.run(
            [sys.executable, "-m", "gpu_tenant", *words], capture_output=True, text=True, check=False
        )
        assert given.returncode == 0, given.stdout + given.stderr


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    volumes = tmp_path / "market/volumes"
    volumes.mkdir(parents=True)
    mounted = ["mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", str(volumes)]
    if subprocess.run(mounted, capture_output=True, check=False).returncode != 0:
        pytest.skip("NOT RUN: mounting a file system is not allowed here")
    try:
        with running_marketplace("process", api_key="planted-account-key", state_dir=tmp_path / "market") as market:
            if "its own user" not in market.engine["users"]:
                pytest.skip(f"NOT RUN: {market.engine['users']}")
            yield Team(tmp_path, market)
    finally:
        subprocess.run(["umount", "--lazy", str(volumes)], check=True)


@needs_root
def test_the_life_of_an_instance(team: Team) -> None:
    planned = team.play("provision", "--check")
    assert f'"instance_type": "{TYPE}"' in planned
    assert '"price_per_hour": 0.8' in planned
    assert f'"region": "{REGION}"' in planned, "where its file system is"
    assert team.vms() == []

    team.play("train")
    (rented,) = team.vms()
    assert rented["file_system_names"] == ["results"]
    assert rented["ssh_key_names"][0].startswith("gpu-tenant-")
    record = StateStore(str(team.state_dir)).read_box("plain", BOX, 1)
    assert record is not None
    assert (record["platform"], record["provider_id"]) == ("lambda", rented["id"])
    assert record["admitted_at"] is not None
    assert "no state of rest" in team.play("provision", "-e", "tenant_state=parked", ok=False)
    team.await_durable_checkpoint()
    team.terminate_behind_our_back()

    harvested = team.play("site", "-e", "train_wait_s=600")
    (vm,) = team.vms()
    assert vm["id"] != rented["id"]
    assert f"{BOX} bills on: lambda has no stop that keeps it" in harvested
    (home,) = (team.state_dir / "results").rglob("model.json")
    assert json.loads(home.read_text()) == {"resumed_from": 1}, "from the file system, on another instance"

    team.approve()
    ended = team.play("teardown")
    assert team.vms() == []
    assert f"File system results in {REGION} bills on until a person deletes it in the console" in ended
    assert list(team.file_system.rglob("step-*.pt")), "nothing here deletes one"


@pytest.mark.parametrize("used", [False, True], ids=["never used", "used"])
def test_an_instance_that_another_replaced_goes_if_nothing_was_put_on_it_and_is_named_else(
    tmp_path: Path, used: bool
) -> None:
    """It cannot be stopped. What the gate says of the one that counts is another matter."""
    with running_marketplace("none", api_key="planted-account-key", state_dir=tmp_path / "market") as market:
        team = Team(tmp_path, market)
        store = StateStore(str(team.state_dir))
        account = VmAccount(LambdaClient(market.api_key, market.url + SIDES["lambda"]), store)
        key = str(team.folder / "id.pub")
        converge(account, Desire("started", VmOrder("plain", BOX, (TYPE,), public_key_file=key, price_cap=1.0)))
        (first,) = team.vms()
        if used:
            store.update_box("plain", BOX, 1, deploy_started_at=records.utc_now())
        order = {"region_name": REGION, "instance_type_name": TYPE, "ssh_key_names": first["ssh_key_names"]}
        stamp = f"gt1/plain/{BOX}/g2/0123456789abcdef"
        second = team.ask("POST", "/instance-operations/launch", {**order, "name": stamp})["instance_ids"][0]

        said = team.play("teardown", ok=False)
        left = {vm["id"] for vm in team.vms()}
        assert left == ({first["id"], second} if used else {second})
        assert ("was replaced, bills in full and is kept" in said) is used
        assert f"approve destroy {BOX} --generation 1 --loss" in said or not used
