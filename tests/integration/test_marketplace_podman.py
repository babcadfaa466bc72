# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Boxes of the podman engine: the core of what the process engine's must do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from marketplace_tools import DEADLINE_S, Tenant, wait_until

from gpu_tenant.marketplace.lambda_cloud.routes import BASE
from gpu_tenant.marketplace.testing import running_marketplace

pytestmark = [
    pytest.mark.integration,
    pytest.mark.podman,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("podman") is None, reason="podman as root is missing"),
]


@pytest.fixture(scope="module")
def tenant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenant]:
    with running_marketplace("podman") as market:
        made = Tenant(market, tmp_path_factory.mktemp("tenant"))
        made.register_key()
        yield made


def containers(tenant: Tenant) -> list[str]:
    """Those of this marketplace; another worker's tests have theirs."""
    words = ["podman", "ps", "--all", "--quiet", "--filter", f"label={tenant.market.engine['label']}"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()


def test_a_container_lives_the_life_of_a_box(tenant: Tenant, tmp_path: Path) -> None:
    offer = tenant.offers(gpu_name={"eq": "RTX 4090"})[0]
    env = {"TENANT_STAMP": "gt1/p/b/g1/0123456789abcdef"}
    number = tenant.rent(offer, env=env, onstart='echo "$TENANT_STAMP" >>/workspace/starts')
    port = tenant.port(number)
    assert tenant.run(number, "id -un; pwd; echo $TENANT_STAMP").split() == ["root", "/root", env["TENANT_STAMP"]]
    assert tenant.run(number, "nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits") == "16380\n"
    assert tenant.run(number, "python3 -c 'import sys; print(sys.prefix)'").strip() == sys.prefix
    assert tenant.ssh(number, "tty; exit 7", "-tt").returncode == 7
    asked = {"command": "ls '/workspace' /no-such-folder"}
    answer = tenant.market.request("PUT", f"/api/v0/instances/command/{number}/", asked)
    with urllib.request.urlopen(answer["result_url"], timeout=DEADLINE_S) as printed:
        said = printed.read().decode()
    assert "/workspace:" in said
    assert "No such file" in said
    (tmp_path / "file").write_bytes(os.urandom(10_000))
    rsync = ["rsync", "-a", "-e", " ".join(["ssh", *tenant.ssh_options(number)])]
    subprocess.run([*rsync, f"{tmp_path}/file", f"{tenant.address}:/workspace/"], check=True, timeout=DEADLINE_S)
    batch = f"get /workspace/file {tmp_path / 'back'}\n"
    words = ["sftp", "-q", "-b", "-", *tenant.ssh_options(number), tenant.address]
    subprocess.run(words, input=batch, text=True, check=True, timeout=DEADLINE_S, capture_output=True)
    assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()

    assert len(containers(tenant)) == 1
    process = tenant.run(number, "setsid sleep 600 >/dev/null 2>&1 </dev/null & echo $!").strip()
    assert tenant.ssh(number, f"kill -0 {process}").returncode == 0
    tenant.market.preempt(number)
    assert tenant.ssh(number, "true").returncode == 255
    tenant.market.release(number)
    tenant.market.wait_until_running(number)
    assert tenant.port(number) == port
    assert tenant.ssh(number, f"kill -0 {process}").returncode != 0
    assert tenant.run(number, "sha256sum </workspace/file") != ""
    wait_until(lambda: tenant.run(number, "cat /workspace/starts").split() == [env["TENANT_STAMP"]] * 2)

    tenant.market.request("DELETE", f"/api/v0/instances/{number}/", {})
    tenant.market.wait_for(number, lambda row: row is None)
    assert containers(tenant) == []


def test_the_sshd_of_a_pod_starts_with_its_image_and_shows_the_keys_of_its_container(tenant: Tenant) -> None:
    """RP6, RP10: new ones with every start, unless the pod's command keeps them."""
    order = {"name": "a pod", "imageName": "any", "gpuTypeIds": ["NVIDIA GeForce RTX 4090"], "cloudType": "COMMUNITY"}
    pod = tenant.market.request("POST", "/v1/pods", {**order, "supportPublicIp": True, "volumeInGb": 0})["id"]

    def shown() -> str:
        wait_until(lambda: bool(tenant.market.request("GET", f"/v1/pods/{pod}")["portMappings"]))
        port = tenant.market.request("GET", f"/v1/pods/{pod}")["portMappings"]["22"]
        words = ["ssh-keyscan", "-T", "120", "-t", "ed25519", "-p", str(port), "127.0.0.1"]
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=DEADLINE_S).stdout.split()[2]

    first = shown()
    tenant.market.request("POST", f"/v1/pods/{pod}/stop")
    tenant.market.request("POST", f"/v1/pods/{pod}/start")
    assert shown() != first


def test_a_virtual_machine_lets_in_ubuntu_alone_who_has_sudo_and_owns_its_file_system(tenant: Tenant) -> None:
    def ask(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return tenant.market.request(method, BASE + path, body)["data"]

    (key, *_others) = ask("GET", "/ssh-keys")
    ask("POST", "/filesystems", {"name": "data", "region": "us-west-1"})
    order = {"region_name": "us-west-1", "instance_type_name": "gpu_1x_a6000", "file_system_names": ["data"]}
    made = ask("POST", "/instance-operations/launch", {**order, "name": "a vm", "ssh_key_names": [key["name"]]})
    path = f"/instances/{made['instance_ids'][0]}"
    wait_until(lambda: ask("GET", path)["status"] == "active")
    row = ask("GET", path)
    assert "ssh_user" not in row

    def said(login: str, command: str) -> str:
        words = ["ssh", *tenant.ssh_options_of(row["ssh_port"]), f"{login}@127.0.0.1", command]
        done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        return (done.stdout + done.stderr).strip()

    assert said("ubuntu", "id -un; pwd").split() == ["ubuntu", "/home/ubuntu"]
    assert said("ubuntu", "sudo -n id -un") == "root", said(
        "ubuntu", "sudo -n id; cat /etc/hosts; hostname; ls -la /etc"
    )
    assert (
        said("ubuntu", "touch /lambda/nfs/data/a && stat -c %U /lambda/nfs/data/a; touch /a 2>/dev/null || echo no")
        == "ubuntu\nno"
    )
    assert "Permission denied" in said("root", "id -un")
    ask("POST", "/instance-operations/terminate", {"instance_ids": made["instance_ids"]})
    wait_until(lambda: ask("GET", "/instances") == [])
