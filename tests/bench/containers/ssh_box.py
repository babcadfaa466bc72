# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A box for benches: a podman container with a real sshd, on a bridge of its own, so that its link can be shaped."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import transfer

from gpu_tenant.marketplace.engines.podman import LIMITS
from gpu_tenant.marketplace.engines.podman_image import build_image

REPOSITORY = Path(__file__).resolve().parents[3]
LIBRARY = "ansible_collections/tenant/gpu/plugins/module_utils"
# Where the domain library lies in the box, compiled; Ansible would send it with each module, which is no part of what
# is measured here.
LIBRARY_IN_BOX = "/opt/library"
DATA_IN_BOX = "/data"
CIPHER = "chacha20-poly1305@openssh.com"
_DEADLINE_S = 60
_PEER = """
import json, sys
from ansible_collections.tenant.gpu.plugins.module_utils import delivery
print(json.dumps(delivery.answer(json.load(sys.stdin), False)))
"""
_MANIFEST = """
import json, sys
from ansible_collections.tenant.gpu.plugins.module_utils.box import manifest
globs = [{"glob": "**", "role": "other", "loader": "none"}]
identity = {"project": "bench", "box": "box1", "generation": 1, "provider_id": "1"}
print(json.dumps(manifest.build(identity, "r1", "5" * 64, manifest.of_folder(sys.argv[1], globs))))
"""


@dataclass
class SshBox:
    """``data`` is the folder here that the box has as ``/data``."""

    folder: Path
    data: Path
    address: str
    container: str

    @property
    def ssh(self) -> list[str]:
        """ssh without compression and without sharing, as every way of copying here uses it."""
        options = [f"UserKnownHostsFile={self.folder}/known_hosts", "IdentitiesOnly=yes", "Compression=no"]
        options.append(f"Ciphers={CIPHER}")
        words = ["ssh", "-i", str(self.folder / "key"), "-F", "none", "-o", "BatchMode=yes"]
        return words + [word for option in options for word in ("-o", option)]

    @property
    def place(self) -> str:
        return f"root@{self.address}"

    @property
    def link(self) -> transfer.Link:
        texts = [
            shlex.join(["-F", "none", "-o", f"UserKnownHostsFile={self.folder}/known_hosts", "-o", f"Ciphers={CIPHER}"])
        ]
        options = transfer.play_options(22, "root", str(self.folder / "key"), 10, texts)
        return transfer.Link(host=self.address, options=options, control_path=self.control_path)

    @property
    def control_path(self) -> str:
        return str(self.folder / "cp")

    def run(self, *words: str, data: bytes = b"") -> bytes:
        """A command over the connection that stays open, as a play's does."""
        shared = ["-o", "ControlMaster=auto", "-o", "ControlPersist=600", "-o", f"ControlPath={self.control_path}"]
        argv = [*self.ssh, *shared, self.place, shlex.join(words)]
        return subprocess.run(argv, input=data, stdout=subprocess.PIPE, check=True).stdout

    def python(self, code: str, *arguments: str, data: bytes = b"") -> bytes:
        return self.run("env", f"PYTHONPATH={LIBRARY_IN_BOX}", "python3", "-c", code, *arguments, data=data)

    def ask(self, op: str, files: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
        """What the action ``checked_sync`` asks."""
        request = {
            "within": "",
            "aside": [],
            "inode_cap": 0,
            **options,
            "op": op,
            "files": files,
        }
        answer: dict[str, Any] = json.loads(self.python(_PEER, data=json.dumps(request).encode()))
        return answer

    def manifest(self, root: str) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(self.python(_MANIFEST, root))
        return record

    @contextlib.contextmanager
    def shaped(self, rate: str) -> Iterator[None]:
        """What leaves the box goes through a token bucket (tc-tbf), whatever program sends it."""
        qdisc = ["dev", "eth0", "root"]
        self._in_its_network("tc", "qdisc", "add", *qdisc, "tbf", "rate", rate, "burst", "256kb", "latency", "50ms")
        try:
            yield
        finally:
            self._in_its_network("tc", "qdisc", "del", *qdisc)

    def _in_its_network(self, *words: str) -> None:
        pid = _podman("inspect", "--format", "{{.State.Pid}}", self.container)
        subprocess.run(["nsenter", "--target", pid, "--net", *words], check=True)

    def work(self) -> float:
        """Processor seconds of everything that ever ran in the box."""
        text = self._meter.read_text()
        return int(text) / 1e9 if self._meter.name == "cpuacct.usage" else int(text.split()[1]) / 1e6

    @functools.cached_property
    def _meter(self) -> Path:
        """Found once: to ask podman takes a tenth of a second of the processor, which is what is measured."""
        pid = _podman("inspect", "--format", "{{.State.Pid}}", self.container)
        groups = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
        for _number, controllers, path in groups:
            if "cpuacct" in controllers.split(","):
                return Path(f"/sys/fs/cgroup/{controllers}{path}/cpuacct.usage")
        return Path(f"/sys/fs/cgroup{groups[0][2]}/cpu.stat")

    def sent_bytes(self) -> int:
        """Bytes that left the box, with everything that ssh and TCP add."""
        return int(self.run("cat", "/sys/class/net/eth0/statistics/tx_bytes"))


_ENVIRONMENT: dict[str, str] = {}


def _podman(*words: str) -> str:
    done = subprocess.run(["podman", *words], env=_ENVIRONMENT, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


@contextlib.contextmanager
def ssh_box(data: Path) -> Iterator[SshBox]:
    """A running box that sees ``data``. Needs root for the bridge and the shaping."""
    folder = Path(tempfile.mkdtemp(prefix="gt-bench-", dir="/tmp"))
    settings = folder / "containers.conf"
    settings.write_text(LIMITS + ('[engine]\nruntime = "runc"\n' if shutil.which("runc") else ""), encoding="ascii")
    _ENVIRONMENT.update(os.environ, CONTAINERS_CONF=str(settings))
    keys = [_make_key(folder / name) for name in ("key", "host_key")]
    (folder / "authorized_keys").write_text(keys[0])
    container = f"gt-bench-{os.getpid()}"
    shutil.copytree(REPOSITORY / "plugins/module_utils", folder / "library", ignore=shutil.ignore_patterns("*.pyc"))
    mounts = {folder: "/keys:ro", data: f"{DATA_IN_BOX}:ro", folder / "library": f"{LIBRARY_IN_BOX}/{LIBRARY}"}
    volumes = [word for here, there in mounts.items() for word in ("--volume", f"{here}:{there}")]
    sshd = [
        "-D",
        "-e",
        "-h",
        "/keys/host_key",
        "-o",
        "AuthorizedKeysFile=/keys/authorized_keys",
        "-o",
        "StrictModes=no",
    ]
    start = f"mkdir -p /run/sshd && exec /usr/sbin/sshd {shlex.join(sshd)}"
    try:
        image = build_image(_ENVIRONMENT)
        _podman("run", "--detach", "--init", "--name", container, *volumes, image, "/bin/sh", "-c", start)
        address = _podman("inspect", "--format", "{{.NetworkSettings.IPAddress}}", container)
        (folder / "known_hosts").write_text(f"{address} {keys[1]}")
        box = SshBox(folder, data, address, container)
        _wait_for(box)
        box.run("python3", "-m", "compileall", "-q", LIBRARY_IN_BOX)
        box.work()
        yield box
    finally:
        subprocess.run(["ssh", "-O", "exit", "-o", f"ControlPath={folder}/cp", "x"], capture_output=True, check=False)
        subprocess.run(["podman", "rm", "--force", "--time", "0", container], env=_ENVIRONMENT, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _make_key(path: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return Path(f"{path}.pub").read_text(encoding="ascii")


def _wait_for(box: SshBox) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while subprocess.run([*box.ssh, box.place, "true"], capture_output=True, check=False).returncode != 0:
        if time.monotonic() > deadline:
            raise TimeoutError("the container's sshd did not answer")
        time.sleep(0.1)
