# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Boxes made of processes: an own sshd on the loopback interface in front of a root of its own.

sshd itself stays outside the box (inside a user namespace it dies at setgroups); its forced command carries each
session into the box's user, pid, mount, uts and ipc namespaces. Where the kernel refuses those, a box is only a
process tree with a home of its own, and says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import select
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from . import box_root
from .account import ROOT, Account, account_of, with_account
from .base import EXECUTE_DEADLINE_S, START_DEADLINE_S, BoxSpec, Engine, EngineError, find_tool, require_tools
from .control import (
    delete_tree,
    give,
    make_host_key,
    openssh_version,
    python_prefixes,
    renew_host_key,
    sftp_server,
    write_control,
    write_keys,
    write_program,
)
from .keeper import NAMESPACES

PACKAGES = {
    "sshd": "openssh-server",
    "ssh-keygen": "openssh-client",
    "rsync": "rsync",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "pivot_root": "util-linux",
    "mount": "mount",
    "script": "bsdutils",
}
STOP_DEADLINE_S = 10.0
_TRIAL = "mount -t tmpfs tmpfs /tmp && mount -t proc proc /proc"


class ProcessEngine(Engine):
    """:param refusal: why boxes shall have no namespaces; found out from the kernel when not given."""

    name = "process"
    has_links = True

    def __init__(self, refusal: str | None = None) -> None:
        self._keepers: dict[int, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._refusal = refusal
        self._as_root = os.geteuid() == 0
        self._login = pwd.getpwuid(os.geteuid()).pw_name
        self._plan = box_root.plan_root(python_prefixes())
        self._has_users = False

    def check(self) -> None:
        require_tools(PACKAGES, self.name)
        if self._as_root:
            # sshd of root insists on this directory, which Debian's service would have made.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self._refusal = self._refusal or refusal_of_namespaces()
        self.limits_room = self.mounts_volumes = self.isolated
        self._has_users = self.isolated and self._as_root and can_mount()

    @property
    def isolated(self) -> bool:
        return self._refusal is None

    def describe(self) -> dict[str, Any]:
        if self.isolated:
            isolation = "each box has its own user, pid, mount, uts and ipc namespaces and its own root"
        else:
            isolation = (
                f"none: the kernel refuses user namespaces ({self._refusal}). A box is a process tree whose HOME and "
                "WORKSPACE lie in its own directory, but it can read this machine's files"
            )
        users = (
            "a virtual machine is logged into as its own user, who has no sudo here"
            if self._has_users
            else f"none: every box, also a virtual machine, is logged into as {self._login}, who is root in it"
        )
        return {
            "name": self.name,
            "login": self._login,
            "isolation": isolation,
            "isolated": self.isolated,
            "users": users,
        }

    def login_of(self, login: str) -> str:
        return login if login and self._has_users else self._login

    def _account(self, spec: BoxSpec) -> Account:
        return account_of(spec.login) if self._has_users else ROOT

    def create(self, spec: BoxSpec) -> None:
        layout = Layout(spec.directory)
        for directory in (layout.disk, layout.sshd_home, layout.control / "bin"):
            directory.mkdir(parents=True, exist_ok=True)
        layout.directory.chmod(0o700)
        _make_disk(layout.disk, self._plan, self._account(spec))
        if not spec.starts_sshd:
            make_host_key(layout.host_key, spec.box_id)
        self.set_keys(spec)

    def start(self, spec: BoxSpec) -> None:
        layout = Layout(spec.directory)
        end_left_over(layout)
        mounted = [PurePosixPath(path).relative_to("/") for _folder, path in spec.volumes]
        for point in (*self._plan.mount_points(), *mounted):
            make_directory_inside(layout.disk, point)
        give((folder for folder, _path in spec.volumes), self._account(spec))
        self._write_control(spec, layout)
        if spec.starts_sshd:
            layout.sshd_asked.unlink(missing_ok=True)
            _lay_image_start(layout, self.isolated)
        else:
            _show_host_key(layout)
        self.set_keys(spec)
        with contextlib.suppress(FileNotFoundError):
            layout.init_pid.unlink()
        layout.keeper_plan.write_text(json.dumps(self._keeper_plan(spec, layout)), encoding="utf-8")
        keeper = subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__).with_name("keeper.py")), str(layout.keeper_plan)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=layout.log.open("ab"),
            start_new_session=True,
        )
        with self._lock:
            self._keepers[spec.box_id] = keeper
        answer = _first_line(keeper, START_DEADLINE_S + 5)
        if not answer.get("ready"):
            self.stop(spec.box_id)
            raise EngineError(str(answer.get("error") or "the box's keeper ended before the box was ready"))

    def stop(self, box_id: int) -> None:
        with self._lock:
            keeper = self._keepers.pop(box_id, None)
        if keeper is None:
            return
        for stream in (keeper.stdin, keeper.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            keeper.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired as slow:
            keeper.kill()
            raise EngineError(f"the processes of box {box_id} did not end within {STOP_DEADLINE_S:.0f} s") from slow

    def destroy(self, spec: BoxSpec) -> None:
        self.stop(spec.box_id)
        delete_tree(spec.directory)

    def alive(self, box_id: int) -> bool:
        with self._lock:
            keeper = self._keepers.get(box_id)
        return keeper is not None and keeper.poll() is None

    def log(self, spec: BoxSpec) -> str:
        with contextlib.suppress(FileNotFoundError):
            return Layout(spec.directory).log.read_text(encoding="utf-8", errors="replace")
        return ""

    def execute(self, spec: BoxSpec, words: Sequence[str]) -> str:
        """By the way that sessions go in."""
        given = {"PATH": box_root.SYSTEM_PATH, "LANG": "C.UTF-8", "SSH_ORIGINAL_COMMAND": shlex.join(words)}
        try:
            done = subprocess.run(
                [str(Layout(spec.directory).enter)],
                env=given,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=EXECUTE_DEADLINE_S,
                check=False,
            )
        except subprocess.TimeoutExpired as slow:
            raise EngineError(f"{words[0]} did not end within {EXECUTE_DEADLINE_S:.0f} s") from slow
        return done.stdout

    @contextlib.contextmanager
    def disk(self, spec: BoxSpec) -> Iterator[Path]:
        disk = Layout(spec.directory).disk
        if not disk.is_dir():
            raise EngineError(f"instance {spec.box_id} has no disk yet")
        yield disk

    def renew_host_key(self, spec: BoxSpec) -> None:
        renew_host_key(Layout(spec.directory).host_key, spec.box_id)

    def cut_sessions(self, spec: BoxSpec) -> None:
        """End the children of the box's sshd: what they started in the box is not theirs to end."""
        listeners = [pid for pid, command in _commands() if _is_sshd_of(Layout(spec.directory), command)]
        for pid, command in _commands():
            with contextlib.suppress(OSError):
                if command.startswith("sshd") and _parent(pid) in listeners:
                    os.kill(pid, signal.SIGKILL)

    def set_keys(self, spec: BoxSpec) -> None:
        write_keys(Layout(spec.directory).authorized_keys, spec.keys)

    def close(self) -> None:
        with self._lock:
            running = list(self._keepers)
        for box_id in running:
            with contextlib.suppress(EngineError):
                self.stop(box_id)

    def _write_control(self, spec: BoxSpec, layout: Layout) -> None:
        control = box_root.CONTROL_IN_BOX if self.isolated else PurePosixPath(layout.control)
        scripts = {"session": box_root.render_session(control, sftp_server(), own_terminals=self.isolated)}
        if self.isolated:
            scripts["init"] = box_root.render_inner_init(self._plan)
            scripts["outer-init"] = box_root.render_outer_init(
                self._plan, layout.disk, layout.control, f"C.{spec.box_id}", spec.room_mib, spec.volumes
            )
            write_control(layout.control, spec, scripts, account=self._account(spec))
            enter = box_root.render_enter(layout.init_pid, spec.box_id, self._account(spec))
        else:
            scripts["fallback-onstart"] = box_root.render_fallback_onstart(control)
            places = {
                "WORKSPACE": str(layout.disk / "workspace"),
                "TMPDIR": str(layout.disk / "tmp"),
                "SSH_HOST_KEYS": str(layout.etc_ssh),
                "IMAGE_START": str(layout.control / "image-start"),
            }
            write_control(layout.control, spec, scripts, control, str(layout.disk / "root"), places)
            enter = f"#!/bin/sh\nexec /bin/sh {shlex.quote(str(layout.control))}/session\n"
        write_program(layout.enter, enter)
        door = box_root.Door(
            ports=spec.ports,
            login=self.login_of(spec.login),
            host_key=layout.etc_ssh / "ssh_host_ed25519_key" if spec.starts_sshd else layout.host_key,
            authorized_keys=layout.authorized_keys,
            home=layout.sshd_home,
            command=f"exec {shlex.quote(str(layout.enter))}",
        )
        locked = self._as_root and account_is_locked(door.login)
        if door.login != self._login:
            known = Path("/etc/passwd").read_text(encoding="utf-8", errors="replace")
            layout.passwd.write_text(with_account(known, self._account(spec)), encoding="utf-8")
        layout.sshd_config.write_text(box_root.render_sshd_config(door, openssh_version(), locked), encoding="utf-8")

    def _keeper_plan(self, spec: BoxSpec, layout: Layout) -> dict[str, Any]:
        return {
            "isolated": self.isolated,
            "as_root": self._as_root,
            "init": str(layout.control / "outer-init"),
            "init_pid_file": str(layout.init_pid),
            "onstart": ["sh", str(layout.control / "fallback-onstart")],
            # sshd stands outside of the box, so the image's start can only ask for it.
            "sshd_asked": str(layout.sshd_asked) if spec.starts_sshd else "",
            "sshd": self._sshd(spec, layout),
            "port": spec.ports[0],
            "log": str(layout.log),
            "sshd_log": str(layout.directory / "sshd.log"),
            "environment": {"PATH": box_root.SYSTEM_PATH, "LANG": "C.UTF-8"},
            "deadline_s": START_DEADLINE_S,
        }

    def _sshd(self, spec: BoxSpec, layout: Layout) -> list[str]:
        """sshd lets in whom it finds in /etc/passwd, so that one for another user than the machine's sees its own."""
        command = [str(find_tool("sshd")), "-D", "-e", "-f", str(layout.sshd_config)]
        if self.login_of(spec.login) == self._login:
            return command
        mount = 'mount --bind "$0" /etc/passwd && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", mount, str(layout.passwd), *command]


class Layout:
    """Where the parts of one box lie."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.disk = directory / "disk"
        self.etc_ssh = self.disk / "etc/ssh"
        self.sshd_asked = self.disk / "run/sshd.asked"
        self.control = directory / "control"
        self.log = directory / "container.log"
        self.init_pid = directory / "init.pid"
        self.keeper_plan = directory / "keeper.json"
        self.enter = directory / "enter"
        self.sshd_config = directory / "sshd_config"
        self.passwd = directory / "passwd"
        self.host_key = directory / "host_key"
        self.authorized_keys = directory / "authorized_keys"
        self.sshd_home = directory / "sshd-home"


def refusal_of_namespaces() -> str | None:
    """None where a box can have namespaces of its own, else the reason in the kernel's words."""
    command = [*NAMESPACES, "--user", "--map-root-user", "sh", "-c", _TRIAL]
    trial = subprocess.run(command, capture_output=True, text=True, timeout=START_DEADLINE_S, check=False)
    if trial.returncode == 0:
        return None
    return trial.stderr.strip().splitlines()[-1] if trial.stderr.strip() else f"unshare ended with {trial.returncode}"


def can_mount() -> bool:
    """Whether this process may give a child a file system tree of its own without a user namespace around it."""
    trial = subprocess.run(["unshare", "--mount", "true"], capture_output=True, timeout=START_DEADLINE_S, check=False)
    return trial.returncode == 0


def end_left_over(layout: Layout) -> None:
    """End what a killed keeper left: the box's process 1, with which all the others go, and its sshd."""
    init = ""
    with contextlib.suppress(FileNotFoundError):
        init = layout.init_pid.read_text(encoding="ascii").strip()
    for pid, command in _commands():
        is_init = str(pid) == init and f"{box_root.CONTROL_IN_BOX}/init" in command
        if is_init or _is_sshd_of(layout, command):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _commands() -> Iterator[tuple[int, str]]:
    """Process id and command line of every process of this machine."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                command = Path("/proc", entry, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                yield int(entry), command


def _is_sshd_of(layout: Layout, command: str) -> bool:
    return "sshd" in command and str(layout.sshd_config) in command


def _parent(pid: int) -> int:
    return int(
        Path("/proc", str(pid), "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[1]
    )


def account_is_locked(login: str, shadow: Path = Path("/etc/shadow")) -> bool:
    """Whether sshd without PAM would refuse the account. Unreadable means not locked, as sshd sees it too."""
    try:
        lines = shadow.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.split(":")[:2][0] == login and line.split(":")[1].startswith("!") for line in lines if ":" in line)


def _make_disk(disk: Path, plan: box_root.RootPlan, account: Account) -> None:
    for name in box_root.OWN_DIRECTORIES:
        (disk / name).mkdir(parents=True, exist_ok=True)
    (disk / "tmp").chmod(0o1777)
    (disk / "root").chmod(0o700)
    if not account.is_root:
        disk.chmod(0o755)
        # This machine's Python may lie there, and is looked for by its way.
        (disk / "root").chmod(0o711)
        home = disk / account.home.lstrip("/")
        home.mkdir(mode=0o750, exist_ok=True)
        give([home], account)
    for name, target in plan.links:
        if not (disk / name).is_symlink():
            (disk / name).symlink_to(target)
    etc = disk / "etc"
    for name in box_root.ETC_COPIED:
        with contextlib.suppress(OSError):
            shutil.copyfile(Path("/etc") / name, etc / name)
    for name in ("alternatives", "terminfo"):
        if Path("/etc", name).is_dir() and not (etc / name).exists():
            shutil.copytree(Path("/etc", name), etc / name, symlinks=True)
    for name, text in box_root.render_etc(account).items():
        (etc / name).write_text(text, encoding="utf-8")


def _lay_image_start(layout: Layout, isolated: bool) -> None:
    """The start of an image that starts sshd: that stands outside of the box, and so can only be asked for."""
    root = Path("/") if isolated else layout.disk
    asks = f": >{shlex.quote(str(root / layout.sshd_asked.relative_to(layout.disk)))}\nexec sleep infinity"
    write_program(layout.control / "image-start", box_root.render_image_start(root / "etc/ssh", asks))
    if isolated:
        place = layout.disk / "start.sh"
        place.unlink(missing_ok=True)
        place.symlink_to(box_root.CONTROL_IN_BOX / "image-start")


def _show_host_key(layout: Layout) -> None:
    """Lay the public half of the box's host key where a machine has its own. EngineError for a way that is none."""
    make_directory_inside(layout.disk, PurePosixPath("etc/ssh"))
    place = layout.etc_ssh / "ssh_host_ed25519_key.pub"
    # Whatever an earlier tenant put there, also a link that leads elsewhere.
    place.unlink(missing_ok=True)
    shutil.copyfile(layout.host_key.with_suffix(".pub"), place)


def make_directory_inside(disk: Path, inner: PurePosixPath) -> None:
    """Make a mount point on a disk whose earlier tenant may have left symbolic links. EngineError for one."""
    handle = os.open(disk, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in inner.parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=handle)
            try:
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
            except OSError as reason:
                raise EngineError(f"/{inner} of the box is no directory any more: {reason.strerror}") from reason
            os.close(handle)
            handle = below
    finally:
        os.close(handle)


def _first_line(keeper: subprocess.Popen[bytes], timeout_s: float) -> dict[str, Any]:
    assert keeper.stdout is not None
    if not select.select([keeper.stdout], [], [], timeout_s)[0]:
        return {"error": f"the box was not ready within {timeout_s:.0f} s"}
    line = keeper.stdout.readline()
    answer: dict[str, Any] = json.loads(line) if line else {}
    return answer
