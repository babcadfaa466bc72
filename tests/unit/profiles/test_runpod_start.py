# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The command that a pod of RunPod is rented with, run by bash as a pod runs it, among stand-ins."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import jinja2
import pytest

ROOT = Path(__file__).parents[3]
TEMPLATE = ROOT / "roles/provision/templates/runpod_start.sh.j2"
STAMP = "gt1/digits/pod-a/g1/0123456789abcdef"
KEY = "ssh-ed25519 AAAA ada@example"


class Pod:
    """A volume that stays, and a container that is new with every start."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.starts = folder, 0
        self.volume = folder / "workspace"
        self.volume.mkdir()
        words = {"ansible_managed": "managed", "platform_data_dir": str(self.volume)}
        self.script = jinja2.Template(TEMPLATE.read_text(), undefined=jinja2.StrictUndefined).render(words)

    def put(self, path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def start(self, image_starts: bool = False, has_sshd: bool = True) -> Path:
        """The new container; what each stand-in was told is in its file ``said``."""
        self.starts += 1
        container = self.folder / f"container-{self.starts}"
        said = container / "said"
        tools = container / "bin"
        sshd = f'echo "sshd $*" >>{said}; exit 0'
        if has_sshd:
            self.put(tools / "sshd", sshd)
        self.put(tools / "pidof", "exit 1")
        installs = (
            f'echo "apt-get $*" >>{said}; printf "#!/bin/sh\\n%s\\n" \'{sshd}\' >{tools}/sshd; chmod 755 {tools}/sshd'
        )
        self.put(tools / "apt-get", installs)
        if image_starts:
            self.put(container / "start.sh", f"echo image >>{said}")
        (container / "home").mkdir()
        names = {
            "PATH": f"{tools}:/usr/bin:/bin",
            "HOME": str(container / "home"),
            "SSH_HOST_KEYS": str(container / "etc"),
            "IMAGE_START": str(container / "start.sh"),
            "TENANT_STAMP": STAMP,
            "PUBLIC_KEY": KEY,
        }
        done = subprocess.run(["bash", "-c", self.script], env=names, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return container


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


def keys_of(container: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (container / "etc").glob("ssh_host_*")}


def test_host_keys_are_the_same_after_a_start(pod: Pod) -> None:
    """RP6: the port moves with each start, and only the pinned key says that the pod is still ours."""
    first, second = pod.start(), pod.start(image_starts=True)
    assert "ssh_host_ed25519_key" in keys_of(first)
    assert keys_of(first) == keys_of(second)
    private = next(pod.volume.rglob("ssh_host_ed25519_key"))
    assert private.stat().st_mode & 0o077 == 0
    assert STAMP in str(private), "pods that share a network volume have keys of their own"


def test_the_image_s_own_start_is_kept(pod: Pod) -> None:
    """RP10: it lets in the key and starts sshd itself."""
    container = pod.start(image_starts=True, has_sshd=False)
    assert (container / "said").read_text() == "image\n"


def test_an_image_that_starts_nothing_gets_an_sshd_and_the_key(pod: Pod) -> None:
    container = pod.start()
    assert (container / "said").read_text() == "sshd -D -e\n"
    authorized = container / "home/.ssh/authorized_keys"
    assert authorized.read_text() == KEY + "\n"
    assert authorized.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(os.path.exists("/usr/bin/sshd"), reason="an sshd of this machine lies on the path of every pod")
def test_an_image_without_sshd_gets_one_installed(pod: Pod) -> None:
    said = (pod.start(has_sshd=False) / "said").read_text().splitlines()
    assert said == [
        "apt-get update -qq",
        "apt-get install -qq -y --no-install-recommends openssh-server",
        "sshd -D -e",
    ]


def test_what_was_deployed_goes_on_at_every_start(pod: Pod) -> None:
    """RP2: the container is wiped, the volume is not, and the supervisor lies there."""
    told = pod.folder / "resumed"
    pod.put(pod.volume / "gpu-tenant/bin/resume-all", f"echo resumed >>{told}")
    pod.start()
    # It runs beside the image's own start, which does not wait for it.
    subprocess.run(["bash", "-c", f"until [ -s {told} ]; do sleep 0.05; done"], check=True, timeout=120)
    assert told.read_text() == "resumed\n"
