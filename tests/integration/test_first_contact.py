# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A box as AutoDL hands it out: a real sshd with a password and no key, another port after a start, and its clone."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import transfer
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.machine_mark import MARK_NAME
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.plugin_utils import first_key
from loopback_sshd import wait_for
from ports import free_port

from gpu_tenant.marketplace.engines import podman, podman_image

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.integration,
    pytest.mark.podman,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("podman") is None, reason="podman as root is missing"),
]
PASSWORD = "pa ss'w\"rd$(id)\\" + secrets.token_hex(8)
UUID, CLONE_UUID = "4a7f45b869-e38322e3", "d4594a8753-96d5e6b4"
PLAY = [
    {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [
            {"tenant.gpu.box_locate": {}},
            {"tenant.gpu.box_host_key": {"state_dir": "{{ tenant_state_dir }}"}},
            {"tenant.gpu.box_key": {"public_key_file": "{{ key }}.pub"}},
            {"tenant.gpu.box_login": {"within_s": 300}},
            {
                "tenant.gpu.box_machine": {
                    "project": "vision", "state_dir": "{{ tenant_state_dir }}", "state": "marked", "required": True,
                }
            },
        ],
    }
]  # fmt: skip


@dataclass
class Team:
    """Its controller, and the containers that it rents. ``ports``: sshd listens at both, as if it had moved."""

    folder: Path
    environment: dict[str, str]
    image: str

    @property
    def key(self) -> Path:
        return self.folder / "id"

    @property
    def store(self) -> StateStore:
        return StateStore(str(self.folder / "state"))

    def podman(self, *words: str, stdin: str = "") -> str:
        done = subprocess.run(
            ["podman", *words],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def start(self, name: str, image: str, uuid: str, ports: list[int]) -> None:
        listens = " ".join(f"-p {port}" for port in ports)
        sshd = (
            "mkdir -p /run/sshd && ssh-keygen -A >/dev/null && exec /usr/sbin/sshd -D -o ListenAddress=127.0.0.1 "
            f"-o PermitRootLogin=yes -o PasswordAuthentication=yes -o UsePAM=yes {listens}"
        )
        named = ["--name", name, "--hostname", f"autodl-container-{uuid}", "--env", f"AutoDLContainerUUID={uuid}"]
        self.podman(
            "run", "--detach", "--init", "--network", "host", "--pull", "never", *named, image, "/bin/sh", "-c", sshd
        )
        self.podman("exec", "--interactive", name, "chpasswd", stdin=f"root:{PASSWORD}\n")
        for port in ports:
            wait_for(lambda port=port: self.shows_key(port), what=f"sshd at {port}")

    @staticmethod
    def shows_key(port: int) -> bool:
        words = ["ssh-keyscan", "-T", "2", "-p", str(port), "127.0.0.1"]
        return bool(subprocess.run(words, capture_output=True, timeout=600, check=False).stdout)

    def play(self, port: int, password: str = "", ok: bool = True) -> str:
        """The first minutes of `provision`, at a port; all that it printed at the loudest."""
        variables = {
            "ansible_host": "127.0.0.1",
            "ansible_port": port,
            "ansible_ssh_private_key_file": str(self.key),
            "ansible_ssh_extra_args": "-o IdentitiesOnly=yes",
            "tenant_project": "vision",
            "tenant_state_dir": str(self.folder / "state"),
            "key": str(self.key),
        }
        (self.folder / "hosts.yml").write_text(json.dumps({"autodl": {"hosts": {"a1": variables}}}))
        (self.folder / "profiles.yml").write_text("plugin: tenant.gpu.profiles\n")
        (self.folder / "play.yml").write_text(yaml.safe_dump(PLAY))
        sources = ["-i", str(self.folder / "profiles.yml"), "-i", str(self.folder / "hosts.yml")]
        environment = {
            **os.environ,
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.folder / "cp"),
            "TENANT_PASSWORD_A1": password,
        }
        environment.pop("SSH_AUTH_SOCK", None)
        program = str(Path(sys.executable).parent / "ansible-playbook")
        done = subprocess.run(
            [program, *sources, str(self.folder / "play.yml"), "-vvvv"],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert (done.returncode == 0) is ok, said[-6000:]
        assert "Traceback" not in said
        return said

    @property
    def record(self) -> dict[str, Any]:
        return self.store.read_box("vision", "a1", 1) or {}


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Team, str, list[int]]]:
    # Short, because a control socket's path may have about a hundred characters.
    folder = Path(f"/tmp/gt-first-{secrets.token_hex(4)}")
    folder.mkdir(mode=0o700)
    settings = folder / "containers.conf"
    settings.write_text(podman.LIMITS + ('[engine]\nruntime = "runc"\n' if shutil.which("runc") else ""))
    environment = {"CONTAINERS_CONF": str(settings), **os.environ}
    made = Team(folder, environment, podman_image.build_image(environment))
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(made.key)], check=True, timeout=600)
    name, ports = f"gt-first-{folder.name[-8:]}", [free_port(), free_port()]
    try:
        made.start(name, made.image, UUID, ports)
        yield made, name, ports
    finally:
        for one in (name, f"{name}-clone"):
            made.podman("rm", "--force", "--time", "0", "--ignore", one)
        with contextlib.suppress(AssertionError):
            made.podman("rmi", "--force", f"localhost/{name}-clone")
        shutil.rmtree(folder, ignore_errors=True)


def test_a_password_is_used_once_to_put_the_key_there_and_is_seen_nowhere(team: tuple[Team, str, list[int]]) -> None:
    made, name, (port, _moved) = team
    assert made.podman("exec", name, "sh", "-c", "cat /root/.ssh/authorized_keys 2>/dev/null || echo none") == "none"
    said = made.play(port, PASSWORD)
    body = Path(f"{made.key}.pub").read_text().split()[1]
    assert made.podman("exec", name, "cat", "/root/.ssh/authorized_keys").count(body) == 1
    assert made.podman("exec", name, "stat", "-c", "%a", "/root/.ssh", "/root/.ssh/authorized_keys") == "700\n600"
    written = b"".join(path.read_bytes() for path in made.folder.rglob("*") if path.is_file())
    secret = PASSWORD[-16:]
    assert secret not in said
    assert secret.encode() not in written
    marked = json.loads(made.podman("exec", name, "cat", f"/root/autodl-tmp/{MARK_NAME}"))
    assert marked["instance"] == {"env": UUID, "hostname": f"autodl-container-{UUID}"}
    assert made.record["provider_id"] == f"ssh:{marked['id']}"


def test_a_wrong_password_is_said_to_be_one(team: tuple[Team, str, list[int]]) -> None:
    made, _name, (port, _moved) = team
    known = made.folder / "any_host"
    scanned = subprocess.run(
        ["ssh-keyscan", "-T", "120", "-p", str(port), "127.0.0.1"],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    known.write_text(scanned.stdout)
    strange = made.folder / "strange"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(strange)], check=True, timeout=600)
    arguments = f"-F none -o UserKnownHostsFile={known} -o IdentitiesOnly=yes -o IdentityAgent=none"
    link = transfer.Link("127.0.0.1", options=transfer.play_options(port, "root", str(strange), 120, [arguments]))
    assert first_key.try_key(link) == first_key.DENIED
    assert first_key.install(link, "wrong", "n0nce", "ssh-ed25519 AAAA", "AAAA") == (first_key.DENIED, False)
    known.write_text(Path("/dev/null").read_text())
    assert first_key.install(link, PASSWORD, "n0nce", "ssh-ed25519 AAAA", "AAAA") == (first_key.OTHER_KEY, False)


def test_it_is_the_same_box_at_another_port_and_its_clone_is_not(team: tuple[Team, str, list[int]]) -> None:
    made, name, (_port, moved) = team
    before = made.record["provider_id"]
    made.play(moved)
    assert made.record["provider_id"] == before
    assert made.record["machine"]["address"] == f"127.0.0.1:{moved}"
    assert Journal(made.store).lines()[-1]["verb"] == "address_changed"
    # The whole disk: mark, authorized key and host keys.
    made.podman("commit", "--quiet", name, f"localhost/{name}-clone")
    at = free_port()
    made.start(f"{name}-clone", f"localhost/{name}-clone", CLONE_UUID, [at])
    said = " ".join(made.play(at, ok=False).split())
    assert "a clone of it that carries its mark" in said
    assert CLONE_UUID in said
    assert made.record["machine"]["address"] == f"127.0.0.1:{moved}"
