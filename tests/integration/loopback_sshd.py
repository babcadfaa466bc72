# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A real sshd on a loopback port, with keys and configuration of its own, and ad-hoc Ansible against it.

Needs no root. Everything lives in one temporary folder; the developer's own ssh files are never read or written.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import transfer
from ports import free_port
from thread_states import DEAD, STOPPED, thread_states

REPOSITORY = Path(__file__).resolve().parents[2]
ALIAS = "box1.g1"
# A bash below another one: with 0 it takes a command of sshd's for a login, and reads the developer's own ~/.bashrc,
# before every single command (with pyenv or nvm in it, a third of a second each).
NO_STARTUP_FILES = {"SHLVL": "1"}


def sshd_path() -> str | None:
    return shutil.which("sshd") or next((path for path in ("/usr/sbin/sshd",) if os.path.exists(path)), None)


def wait_for(condition: Callable[[], Any], seconds: float = 600.0, what: str = "a condition") -> Any:
    """The first true value of ``condition``; TimeoutError at the deadline."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come true within {seconds} s")
        time.sleep(0.01)


@dataclass
class LoopbackBox:
    """One sshd that plays a box. ``home`` is where tests put the box's files."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    address: str = "127.0.0.1"

    @property
    def home(self) -> Path:
        return self.folder / "box"

    @property
    def key(self) -> Path:
        return self.folder / "client_key"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def host_variables(self, **overrides: Any) -> dict[str, Any]:
        common = f"-o UserKnownHostsFile={self.known_hosts} -o HostKeyAlias={ALIAS} -o IdentitiesOnly=yes"
        return {
            "ansible_host": self.address,
            "ansible_port": self.port,
            "ansible_user": getpass.getuser(),
            "ansible_ssh_private_key_file": str(self.key),
            "ansible_ssh_common_args": common,
            "ansible_python_interpreter": sys.executable,
            # The box is this very machine, whose own start is none of our business.
            "platform_reboot_hook": "",
            **overrides,
        }

    def link(self, more: str = "") -> transfer.Link:
        """The same settings as :meth:`host_variables`, for code that needs no Ansible; ``more`` stands before them."""
        variables = self.host_variables()
        texts = [more, variables["ansible_ssh_common_args"]]
        options = transfer.play_options(self.port, variables["ansible_user"], str(self.key), 120, texts)
        return transfer.Link(host=self.address, options=options)

    def ad_hoc_command(self, module: str, arguments: dict[str, Any], *flags: str, **variables: Any) -> list[str]:
        inventory = self.folder / "inventory.json"
        hosts = {"box1": self.host_variables(**variables)}
        inventory.write_text(json.dumps({"all": {"hosts": hosts}}))
        program = str(Path(sys.executable).with_name("ansible"))
        return [program, "-i", str(inventory), "box1", "-m", module, "-a", json.dumps(arguments), *flags]

    def environment(self) -> dict[str, str]:
        return dict(
            os.environ,
            ANSIBLE_CONFIG=str(REPOSITORY / "ansible.cfg"),
            ANSIBLE_INVENTORY_ENABLED="yaml",
            ANSIBLE_SSH_ARGS="-C -o ControlMaster=auto -o ControlPersist=30s",
            ANSIBLE_SSH_CONTROL_PATH_DIR=str(self.folder / "cp"),
            ANSIBLE_LOCAL_TEMP=str(self.folder / "ansible-tmp"),
            ANSIBLE_REMOTE_TEMP=str(self.folder / "remote-tmp"),
            ANSIBLE_NOCOLOR="1",
            PYTHONPATH="",
        )

    def ad_hoc(self, module: str, arguments: dict[str, Any], *flags: str, **variables: Any) -> dict[str, Any]:
        """The module's result, failed or not."""
        command = self.ad_hoc_command(module, arguments, *flags, **variables)
        done = subprocess.run(
            command, cwd=REPOSITORY, env=self.environment(), capture_output=True, text=True, timeout=600, check=False
        )
        return parse_ad_hoc(done.stdout, done.stderr)

    def close(self) -> None:
        for control in (self.folder / "cp").glob("*"):
            subprocess.run(
                ["ssh", "-O", "exit", "-o", f"ControlPath={control}", "x"],
                capture_output=True,
                timeout=600,
                check=False,
            )
        self.process.terminate()
        self.process.wait(timeout=600)


def parse_ad_hoc(stdout: str, stderr: str = "") -> dict[str, Any]:
    """The JSON after ``box1 | STATE =>``; ``shown`` is what stands before it: the diff and STATE."""
    start = stdout.find("=> ")
    if start < 0:
        raise AssertionError(f"no result in: {stdout}\n{stderr}")
    result: dict[str, Any] = json.JSONDecoder().raw_decode(stdout[start + 3 :])[0]
    return dict(result, shown=stdout[:start], failed="FAILED!" in stdout[:start])


def _make_key(path: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=600)
    return path.with_suffix(".pub").read_text().strip() if path.suffix else Path(f"{path}.pub").read_text().strip()


def _path_without(folder: Path, hidden: tuple[str, ...]) -> str:
    """A PATH with every program of this machine but the hidden ones."""
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    for source in ("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin"):
        for program in Path(source).iterdir() if os.path.isdir(source) else ():
            if program.name not in hidden and not (bin_folder / program.name).exists():
                with contextlib.suppress(FileExistsError):
                    (bin_folder / program.name).symlink_to(program)
    return str(bin_folder)


@contextlib.contextmanager
def loopback_box(
    hidden_programs: tuple[str, ...] = (), address: str = "127.0.0.1", environment: dict[str, str] | None = None
) -> Iterator[LoopbackBox]:
    """A running box; ``hidden_programs`` are missing from its PATH, ``environment`` is that of its logins."""
    # Short, because a control socket's path may have about a hundred characters.
    folder = Path(tempfile.mkdtemp(prefix="gt-", dir="/tmp"))
    try:
        (folder / "box").mkdir()
        client_key, host_key = _make_key(folder / "client_key"), _make_key(folder / "host_key")
        (folder / "authorized_keys").write_text(client_key + "\n")
        (folder / "known_hosts").write_text(f"{ALIAS} {' '.join(host_key.split()[:2])}\n")
        known = dict(NO_STARTUP_FILES, **(environment or {}))
        if hidden_programs:
            known["PATH"] = _path_without(folder, hidden_programs)
        box = _start(folder, known, address)
        try:
            yield box
        finally:
            box.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, environment: dict[str, str], address: str) -> LoopbackBox:
    program = sshd_path()
    if program is None:
        raise FileNotFoundError("sshd is not installed (package openssh-server)")
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    port = free_port(address)
    configuration = folder / "sshd_config"
    lines = [
        f"Port {port}",
        f"ListenAddress {address}",
        f"HostKey {folder}/host_key",
        f"AuthorizedKeysFile {folder}/authorized_keys",
        f"PidFile {folder}/sshd.pid",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin prohibit-password",
        "MaxStartups 100",
        "MaxSessions 100",
        "Subsystem sftp internal-sftp",
    ]
    lines.append("SetEnv " + " ".join(f'"{name}={value}"' for name, value in environment.items()))
    configuration.write_text("\n".join(lines) + "\n")
    said = folder / "sshd.log"
    with said.open("wb") as log:
        process = subprocess.Popen([program, "-D", "-e", "-f", str(configuration)], stdout=log, stderr=log)
    # Its own word, and not that somebody answers on the port.
    wait_for(lambda: process.poll() is not None or f"Server listening on {address} " in said.read_text(), what="sshd")
    if process.poll() is not None:
        raise RuntimeError(f"sshd did not start: {said.read_text()}")
    return LoopbackBox(folder, port, process, address)


def descendants_named(ancestor: int, name: str) -> list[int]:
    """Pids below ``ancestor`` whose program is ``name``."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                text = (entry / "stat").read_text()
                parents[int(entry.name)] = int(text.rpartition(")")[2].split()[1])
                names[int(entry.name)] = text[text.index("(") + 1 : text.rindex(")")]
    found = []
    for pid in parents:
        above = pid
        while above and above != ancestor:
            above = parents.get(above, 0)
        if above == ancestor and names[pid] == name:
            found.append(pid)
    return sorted(found)


def kill_tree(ancestor: int, names: tuple[str, ...]) -> None:
    """kill -9 for a process and those below it that are called so; returns when none of them holds anything any more.

    Each is stopped before one looks below it, so that none starts another one unseen. Signals are only asked for: on a
    busy machine a killed process still holds its files and locks until it gets the processor.
    """
    stopped: list[int] = []
    new = [ancestor]
    while new:
        end_pids(new, signal.SIGSTOP)
        for pid in new:
            wait_for(lambda pid=pid: thread_states(pid) <= STOPPED, what=f"pid {pid} to stop")
        stopped += new
        below = [pid for name in names for pid in descendants_named(ancestor, name)]
        new = [pid for pid in below if pid not in stopped]
    end_pids(stopped, signal.SIGKILL)
    for pid in stopped:
        wait_for(lambda pid=pid: thread_states(pid) <= DEAD, what=f"pid {pid} to die")


def end_pids(pids: list[int], number: int = signal.SIGTERM) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
