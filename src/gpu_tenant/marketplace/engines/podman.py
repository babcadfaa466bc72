# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Boxes made of containers, by root: each with its own sshd on a loopback port of the machine."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

from . import box_root
from .account import ROOT, Account, account_of
from .base import LOOPBACK, START_DEADLINE_S, BoxSpec, Engine, EngineError, require_tools
from .control import (
    SFTP_SERVERS,
    delete_tree,
    give,
    make_host_key,
    python_prefixes,
    renew_host_key,
    write_control,
    write_keys,
    write_program,
)
from .podman_image import build_image

PACKAGES = {"podman": "podman", "catatonit": "catatonit", "ssh-keygen": "openssh-client", "rsync": "rsync"}
COMMAND_DEADLINE_S = 120
POLL_S = 0.05
COPY_LOGIN = "vastai_kaalia"
ETC_SSH = PurePosixPath("/etc/ssh")
_SSHD = f"/usr/sbin/sshd -D -f {box_root.CONTROL_IN_BOX}/sshd_config -E /var/log/sshd.log"
# Enough for a training loader, and within what a container engine inside a virtual machine may hand out.
LIMITS = '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]\n'


class PodmanEngine(Engine):
    """:param state: the market's directory; containers of another market are left alone."""

    name = "podman"
    has_rsync_daemon = True
    has_links = True
    limits_room = True
    mounts_volumes = True

    def __init__(self, image: str, state: Path) -> None:
        self._image = image
        self._state = state
        self._owner = hashlib.sha256(str(state).encode()).hexdigest()[:10]
        # Other marketplaces of this machine count their instances from the same number.
        self._label = f"gpu-tenant-market={self._owner}"
        self._waiters: dict[int, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._environment = dict(os.environ)

    def check(self) -> None:
        if os.geteuid() != 0:
            raise TenantFailure(
                "config",
                "the marketplace's engine 'podman' needs root",
                safe="Nothing was started",
                fix="Start it as root, or take --engine process",
            )
        packages = dict(PACKAGES) if self._image else {**PACKAGES, "mmdebstrap": "mmdebstrap"}
        require_tools(packages, self.name)
        if "CONTAINERS_CONF" not in self._environment:
            self._state.mkdir(parents=True, exist_ok=True)
            settings = self._state / "containers.conf"
            runtime = '[engine]\nruntime = "runc"\n' if shutil.which("runc") else ""
            settings.write_text(LIMITS + runtime, encoding="ascii")
            self._environment["CONTAINERS_CONF"] = str(settings)
        self._image = self._image or build_image(self._environment)
        self._stop_left_over()

    def describe(self) -> dict[str, Any]:
        isolation = "each box is a podman container on the machine's network, its sshd on the loopback interface"
        return {
            "name": self.name,
            "login": "root",
            "isolation": isolation,
            "isolated": True,
            "users": "a virtual machine is logged into as its own user, who has sudo without a password",
            "image": self._image,
            "label": self._label,
        }

    def create(self, spec: BoxSpec) -> None:
        control = spec.directory / "control"
        control.mkdir(parents=True, exist_ok=True)
        spec.directory.chmod(0o700)
        if not spec.starts_sshd:
            make_host_key(control / "host_key", spec.box_id)
        self.set_keys(spec)
        mounts = ["--volume", f"{control}:{box_root.CONTROL_IN_BOX}:ro"]
        for prefix in _prefixes():
            mounts += ["--volume", f"{prefix}:{prefix}:ro"]
        for folder, path in spec.volumes:
            mounts += ["--volume", f"{folder}:{path}"]
        if spec.room_mib is not None:
            mounts += ["--tmpfs", f"/workspace:rw,exec,mode=755,size={int(spec.room_mib * 1024)}k"]
        self._podman(
            "create", "--replace", "--init", "--name", self._container(spec.box_id),
            "--label", self._label,
            # sudo wants to know its host, and podman writes the file that says so anew at every start.
            "--hostname", f"C.{spec.box_id}", "--add-host", f"C.{spec.box_id}:127.0.1.1",
            "--network", "host", "--pull", "never", "--log-driver", "k8s-file",
            *mounts, self._image, "/bin/sh", f"{box_root.CONTROL_IN_BOX}/init",
        )  # fmt: skip

    def start(self, spec: BoxSpec) -> None:
        control = box_root.CONTROL_IN_BOX
        account = account_of(spec.login)
        give((folder for folder, _path in spec.volumes), account)
        scripts = {
            "init": render_container_init(spec.starts_sshd, account),
            "session": box_root.render_session(control, SFTP_SERVERS[0], own_terminals=False, rsync_daemon=True),
            "rsyncd.conf": render_rsyncd_conf(spec.box_id),
            "bashrc": spec.bashrc,
            "sshd_config": box_root.render_sshd_config(_door(spec), (0, 0), locked_account=False),
        }
        write_control(spec.directory / "control", spec, scripts, account=account)
        if spec.starts_sshd:
            start = box_root.render_image_start(ETC_SSH, f"exec {_SSHD}")
            write_program(spec.directory / "control" / "image-start", start)
        self.set_keys(spec)
        name = self._container(spec.box_id)
        self._podman("start", name)
        waiter = subprocess.Popen(
            ["podman", "wait", name],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        with self._lock:
            self._waiters[spec.box_id] = waiter
        deadline = time.monotonic() + START_DEADLINE_S
        while not _answers(spec.ports[0]):
            if waiter.poll() is not None or time.monotonic() > deadline:
                self.stop(spec.box_id)
                raise EngineError("the container's sshd did not answer; the instance's log may say why")
            time.sleep(POLL_S)

    def stop(self, box_id: int) -> None:
        with self._lock:
            waiter = self._waiters.pop(box_id, None)
        if waiter is None:
            return
        self._podman("stop", "--time", "0", self._container(box_id))
        waiter.kill()
        waiter.wait()

    def destroy(self, spec: BoxSpec) -> None:
        with self._lock:
            waiter = self._waiters.pop(spec.box_id, None)
        self._podman("rm", "--force", "--time", "0", "--ignore", self._container(spec.box_id))
        if waiter is not None:
            waiter.kill()
            waiter.wait()
        delete_tree(spec.directory)

    def alive(self, box_id: int) -> bool:
        with self._lock:
            waiter = self._waiters.get(box_id)
        return waiter is not None and waiter.poll() is None

    def log(self, spec: BoxSpec) -> str:
        with contextlib.suppress(EngineError):
            return self._podman("logs", self._container(spec.box_id))
        return ""

    def execute(self, spec: BoxSpec, words: Sequence[str]) -> str:
        # How the command ended is for its output to tell, as with the provider.
        return self._podman("exec", self._container(spec.box_id), "/bin/sh", "-c", f"{shlex.join(words)} 2>&1 || :")

    @contextlib.contextmanager
    def disk(self, spec: BoxSpec) -> Iterator[Path]:
        name = self._container(spec.box_id)
        root = Path(self._podman("mount", name).strip())
        try:
            yield root
        finally:
            # A container that was removed meanwhile is not mounted any more.
            with contextlib.suppress(EngineError):
                self._podman("unmount", name)

    def renew_host_key(self, spec: BoxSpec) -> None:
        renew_host_key(spec.directory / "control" / "host_key", spec.box_id)

    def set_keys(self, spec: BoxSpec) -> None:
        write_keys(spec.directory / "control" / "authorized_keys", spec.keys)

    def close(self) -> None:
        with self._lock:
            running = list(self._waiters)
        for box_id in running:
            with contextlib.suppress(EngineError):
                self.stop(box_id)

    def _container(self, box_id: int) -> str:
        return f"gpu-tenant-{self._owner}-{box_id}"

    def _stop_left_over(self) -> None:
        """Containers outlive a killed server; they are no running boxes of this one."""
        for container in self._podman("ps", "--quiet", "--filter", f"label={self._label}").split():
            self._podman("stop", "--time", "0", container)

    def _podman(self, *words: str) -> str:
        try:
            done = subprocess.run(
                ["podman", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                # Logs of a container come on both; podman's own complaints on the second.
                stderr=subprocess.STDOUT if words[0] == "logs" else subprocess.PIPE,
                text=True,
                errors="replace",
                env=self._environment,
                timeout=COMMAND_DEADLINE_S,
                check=False,
            )
        except subprocess.TimeoutExpired as slow:
            raise EngineError(f"podman {words[0]} did not finish within {COMMAND_DEADLINE_S} s") from slow
        if done.returncode != 0:
            reason = (done.stderr or "").strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
            raise EngineError(f"podman {words[0]}: {reason[0]}")
        return done.stdout


def render_container_init(starts_sshd: bool = False, account: Account = ROOT) -> str:
    """What a container runs below its init: the box's directories, onstart, sshd."""
    control = box_root.CONTROL_IN_BOX
    if starts_sshd:
        # The keys of the image would be those of every box.
        before, stays = f"rm -f {ETC_SSH}/ssh_host_*\nln -sf {control}/image-start /start.sh", "sleep infinity"
    else:
        before, stays = f"cp {control}/host_key.pub {ETC_SSH}/ssh_host_ed25519_key.pub", _SSHD
    return f"""#!/bin/sh
mkdir -p /workspace /run/sshd /root {ETC_SSH}
{before}
# The market's own user, whom its client's local copies log in as.
grep -q '^{COPY_LOGIN}:' /etc/passwd || echo '{COPY_LOGIN}:x:0:0::/root:/bin/sh' >>/etc/passwd
{_make_user(account)}printf '. {control}/environment\\n' >/etc/profile.d/box.sh
. {control}/environment
cd "$HOME" || exit 1
# At the first start alone: from then on it is the tenant's.
[ ! -s {control}/bashrc ] || grep -sqxF "$(head -n 1 {control}/bashrc)" .bashrc || cat {control}/bashrc >>.bashrc
{box_root.render_onstart_start(control)}
exec {stays}
"""


def _make_user(account: Account) -> str:
    """Shell lines that make the user of a virtual machine at its first start, as its provider's image has it."""
    if account.is_root:
        return ""
    return f"""if ! grep -q '^{account.name}:' /etc/passwd; then
    useradd --uid {account.number} --user-group --create-home --shell /bin/bash --password '*' {account.name}
    mkdir -p /etc/sudoers.d
    echo '{account.name} ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/90-{account.name}
fi
# The market's Python may lie there, and is looked for by its way.
chmod 711 /root
"""


def render_rsyncd_conf(box_id: int) -> str:
    """Both names that the client may give an instance, each the box's whole disk."""
    module = "path = /\nuse chroot = no\nread only = no\nuid = 0\ngid = 0\n"
    return "".join(f"[{name}]\n{module}" for name in (f"C.{box_id}", str(box_id)))


def _door(spec: BoxSpec) -> box_root.Door:
    control, account = box_root.CONTROL_IN_BOX, account_of(spec.login)
    return box_root.Door(
        ports=spec.ports,
        login=f"root {COPY_LOGIN}" if account.is_root else account.name,
        host_key=ETC_SSH / "ssh_host_ed25519_key" if spec.starts_sshd else control / "host_key",
        authorized_keys=control / "authorized_keys",
        home=PurePosixPath(account.home),
        command=f"exec /bin/sh {control}/session",
    )


def _prefixes() -> list[PurePosixPath]:
    """Python prefixes that an image does not have by itself. Its ``/usr`` has the Python of this machine's release."""
    found = {PurePosixPath(prefix) for prefix in python_prefixes()} - {PurePosixPath("/"), PurePosixPath("/usr")}
    return sorted(path for path in found if found.isdisjoint(path.parents))


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
        return True
    return False
