# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The command that a pod of RunPod is rented with, run by bash as a pod runs it, among stand-ins."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import jinja2
import pytest

ROOT = Path(__file__).parents[3]
TEMPLATE = ROOT / "roles/provision/templates/runpod_start.sh.j2"
STAMP = "gt1/digits/pod-a/g1/0123456789abcdef"
KEY = "ssh-ed25519 AAAA ada@example"
PATIENCE_S = 600.0


class Pod:
    """A volume that stays, and a container that is new with every start."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.starts = folder, 0
        self.volume = folder / "workspace"
        self.volume.mkdir()
        self.stay = self.volume / "gpu-tenant/bin/stay"
        words = {"ansible_managed": "managed", "platform_data_dir": str(self.volume)}
        self.script = jinja2.Template(TEMPLATE.read_text(), undefined=jinja2.StrictUndefined).render(words)

    def put(self, path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def start(self, image_starts: bool = False, has_sshd: bool = True) -> Path:
        """The new container once it ended; what each stand-in was told is in its file ``said``."""
        container, first = self.begin(image_starts, has_sshd)
        _out, said = first.communicate(timeout=PATIENCE_S)
        assert first.returncode == 0, said
        return container

    def begin(self, image_starts: bool = False, has_sshd: bool = True) -> tuple[Path, subprocess.Popen[str]]:
        """The new container and its first process."""
        self.starts += 1
        container = self.folder / f"container-{self.starts}"
        said = container / "said"
        tools = container / "bin"
        sshd = f'echo "sshd $*" >>{said}; exit 0'
        if has_sshd:
            self.put(tools / "sshd", sshd)
        self.put(tools / "pidof", "exit 1")
        self.put(tools / "sleep", "exec /bin/sleep 0.05")
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
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return container, subprocess.Popen(["bash", "-c", self.script], env=names, text=True, **pipes)


@pytest.fixture(scope="module")
def started_before(tmp_path_factory: pytest.TempPathFactory) -> Pod:
    """Its volume holds host keys, which take seconds to make."""
    made = Pod(tmp_path_factory.mktemp("before"))
    made.put(made.stay, "exit 0")
    made.start()
    return made


@pytest.fixture
def pod(tmp_path: Path, started_before: Pod) -> Pod:
    """One that was deployed to, whose run is at its end: its first process leaves."""
    made = Pod(tmp_path)
    shutil.copytree(started_before.volume, made.volume, dirs_exist_ok=True)
    return made


def keys_of(container: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (container / "etc").glob("ssh_host_*")}


def await_text(path: Path, text: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists() or text not in path.read_text():
        assert time.monotonic() < deadline, f"{path} does not say {text!r}"
        time.sleep(0.02)


def test_host_keys_are_the_same_after_a_start(started_before: Pod) -> None:
    """RP6: the port moves with each start, and only the pinned key says that the pod is still ours."""
    pod = started_before
    first, second = pod.folder / "container-1", pod.start(image_starts=True)
    assert "ssh_host_ed25519_key" in keys_of(first)
    assert keys_of(first) == keys_of(second)
    for private in (next(pod.volume.rglob("ssh_host_ed25519_key")), second / "etc/ssh_host_ed25519_key"):
        assert private.stat().st_mode & 0o077 == 0
    assert list(pod.volume.glob(f"*/{STAMP}/etc/ssh/*")), "pods that share a network volume have keys of their own"


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


def test_what_was_deployed_is_the_first_process_at_every_start(pod: Pod) -> None:
    """RP2: the container is wiped, the volume is not, and what goes on with the run lies there."""
    told = pod.folder / "told"
    pod.put(pod.stay, f"echo first process $$ >>{told}")
    for _start in range(2):
        _container, first = pod.begin(image_starts=True)
        first.communicate(timeout=PATIENCE_S)
        await_text(told, f"first process {first.pid}\n")


def test_a_pod_that_nothing_was_deployed_to_waits_for_it_and_can_be_ended(pod: Pod) -> None:
    pod.stay.unlink()
    container, first = pod.begin()
    await_text(container / "said", "sshd -D -e\n")
    assert first.poll() is None
    first.terminate()
    first.communicate(timeout=PATIENCE_S)
    assert first.returncode == 143
    container, first = pod.begin()
    await_text(container / "said", "sshd -D -e\n")
    pod.put(pod.folder / "stay", "exit 7").rename(pod.stay)
    first.communicate(timeout=PATIENCE_S)
    assert first.returncode == 7
