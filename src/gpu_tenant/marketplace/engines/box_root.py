# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The inside of a box of the process engine, as text: its root file system, its scripts, its sshd.

Everything here is pure. A box's root is its own disk with the machine's programs mounted read-only into it, so
that what a box writes anywhere survives a stop, as it does on the market, and nothing of the developer's is in reach.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from .account import ROOT, Account

CONTROL_IN_BOX = PurePosixPath("/.box")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Directories that a merged-usr system has as links into /usr, and others have for real.
PROGRAM_DIRECTORIES = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
OWN_DIRECTORIES = ("root", "workspace", "tmp", "home", "opt", "mnt", "srv", "run", "var/tmp", "var/log", "etc")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True)
class RootPlan:
    """Where the box's root takes its programs from.

    :param binds: absolute directories mounted read-only at their own path.
    :param links: name in the root -> target of a symbolic link.
    """

    binds: tuple[PurePosixPath, ...]
    links: tuple[tuple[str, str], ...]

    def mount_points(self) -> tuple[PurePosixPath, ...]:
        """Directories of the disk, relative to it, on which something gets mounted."""
        system = [PurePosixPath(name) for name in ("proc", "dev", "sys")]
        inner = [path.relative_to("/") for path in self.binds]
        return (*system, CONTROL_IN_BOX.relative_to("/"), *inner)


def plan_root(prefixes: Iterable[Path], root: Path = Path("/")) -> RootPlan:
    """The programs of this machine and the given Python prefixes; a prefix below another is left out."""
    binds = [PurePosixPath("/usr")]
    links = []
    for name in PROGRAM_DIRECTORIES:
        path = root / name
        if path.is_symlink():
            links.append((name, str(path.readlink())))
        elif path.is_dir():
            binds.append(PurePosixPath("/") / name)
    certificates = root / "etc/ssl/certs"
    if certificates.is_dir():
        binds.append(PurePosixPath("/etc/ssl/certs"))
    for prefix in sorted({PurePosixPath(prefix) for prefix in prefixes}):
        if prefix != PurePosixPath("/") and not any(prefix.is_relative_to(bind) for bind in binds):
            binds.append(prefix)
    return RootPlan(tuple(binds), tuple(links))


def usable_environment(environment: dict[str, str]) -> dict[str, str]:
    """The variables among an instance's ``env``; docker flags such as ``-p 8080:8080`` are none."""
    return {name: str(value) for name, value in environment.items() if _ENVIRONMENT_NAME.match(name)}


def render_environment(
    variables: dict[str, str], home: str, control: PurePosixPath, shell: str, user: str = ROOT.name
) -> str:
    """What sessions, onstart and login shells source."""
    system = {
        "HOME": home,
        "USER": user,
        "LOGNAME": user,
        "SHELL": shell,
        "PATH": f"{control / 'bin'}:{SYSTEM_PATH}",
        "LANG": "C.UTF-8",
    }
    merged = {**system, **usable_environment(variables)}
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in merged.items())


def render_outer_init(
    plan: RootPlan,
    disk: Path,
    control: Path,
    hostname: str,
    room_mib: float | None = None,
    volumes: Sequence[tuple[Path, str]] = (),
) -> str:
    """Run in fresh user, pid, mount, uts and ipc namespaces: builds the root and enters it as process 1.

    Its standard output takes the process's own number as the machine counts, once the box is ready.
    """
    lines = [
        "#!/bin/sh",
        "set -eu",
        "umask 022",
        "read -r host_pid _ </proc/self/stat",
        f"mount --rbind {_quote(disk)} {_quote(disk)}",
        f"cd {_quote(disk)}",
    ]
    lines += [f"mount --rbind {_quote(path)} .{_quote(path)}" for path in plan.binds]
    if room_mib is not None:
        lines.append(f"mount -t tmpfs -o mode=0755,size={int(room_mib * 1024)}k tmpfs ./workspace")
    lines += [f"mount --bind {_quote(folder)} .{_quote(path)}" for folder, path in volumes]
    lines += [
        "mount --rbind /sys ./sys",
        f"mount --bind {_quote(control)} .{CONTROL_IN_BOX}",
        "mount -t proc -o nosuid,nodev,noexec proc ./proc",
        "mount -t tmpfs -o mode=0755 tmpfs ./dev",
        "mkdir ./dev/pts ./dev/shm ./dev/.machine",
        "mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts ./dev/pts",
        "mount -t tmpfs -o mode=1777 tmpfs ./dev/shm",
        "ln -s pts/ptmx ./dev/ptmx",
        "ln -s /proc/self/fd ./dev/fd",
        "ln -s /proc/self/fd/0 ./dev/stdin",
        "ln -s /proc/self/fd/1 ./dev/stdout",
        "ln -s /proc/self/fd/2 ./dev/stderr",
    ]
    for device in DEVICES:
        lines += [f": >./dev/{device}", f"mount --bind /dev/{device} ./dev/{device}"]
    lines += [
        f"hostname {_quote(hostname)}",
        "pivot_root . ./dev/.machine",
        f'exec chroot . /bin/sh {CONTROL_IN_BOX}/init "$host_pid"',
    ]
    return "\n".join(lines) + "\n"


def render_inner_init(plan: RootPlan) -> str:
    """Process 1 of a box: lets go of the machine's root, runs onstart, then only buries the dead."""
    read_only = "|".join(f"{_quote(path)}|{_quote(path)}/*" for path in (*plan.binds, CONTROL_IN_BOX))
    return f"""#!/bin/sh
set -eu
host_pid=$1
umount -l /dev/.machine
rmdir /dev/.machine
while read -r _ _ _ _ point _; do
    case "$point" in
        {read_only}) mount -o remount,bind,ro "$point" ;;
        # Parts of /sys that the kernel keeps locked are not writable by a box either.
        /sys|/sys/*) mount -o remount,bind,ro "$point" 2>/dev/null || : ;;
    esac
done </proc/self/mountinfo
trap 'exit 0' TERM
trap '' HUP INT QUIT
. {CONTROL_IN_BOX}/environment
cd "$HOME"
echo "$host_pid"
exec >&2
{render_onstart_start(CONTROL_IN_BOX)}
# The shell's wait buries every orphan of the box, so that none of them looks alive.
while :; do
    sleep 86400 &
    wait "$!" || :
done
"""


def render_onstart_start(control: PurePosixPath) -> str:
    """Copy the instance's onstart to where the market puts it, and start it."""
    return f"""if [ -s {_quote(control)}/onstart.sh ]; then
    cat {_quote(control)}/onstart.sh >"$HOME/onstart.sh"
    setsid sh "$HOME/onstart.sh" </dev/null &
fi"""


def render_image_start(etc_ssh: PurePath, sshd: str) -> str:
    """The ``/start.sh`` of an image that starts sshd itself, with new host keys where it finds none.

    :param sshd: the last command, which stays.
    """
    key = _quote(etc_ssh / "ssh_host_ed25519_key")
    return f"""#!/bin/sh
mkdir -p {_quote(etc_ssh)}
[ -e {key} ] || ssh-keygen -q -t ed25519 -N '' -f {key}
{sshd}
"""


def render_enter(pid_file: Path, box_id: int, account: Account = ROOT) -> str:
    """The forced command of a box's sshd: carries the session into the box, and leaves root's rights outside."""
    number = account.number
    drop = "" if account.is_root else f"setpriv --reuid {number} --regid {number} --init-groups "
    return f"""#!/bin/sh
if ! read -r init <{_quote(pid_file)}; then
    echo 'instance {box_id} is not running' >&2
    exit 255
fi
exec nsenter --target "$init" --user --preserve-credentials --mount --uts --ipc --pid -- \\
    {drop}/bin/sh {CONTROL_IN_BOX}/session
"""


def render_fallback_onstart(control: PurePosixPath) -> str:
    """Starts the onstart of a box that has no process 1 of its own."""
    return f"""#!/bin/sh
. {_quote(control)}/environment
cd "$HOME" || exit
{render_onstart_start(control)}
"""


def render_session(control: PurePosixPath, sftp_server: str, own_terminals: bool, rsync_daemon: bool = False) -> str:
    """What a session does once it is in the box.

    :param own_terminals: the box has a /dev/pts of its own, but sshd, outside of it, made the session's terminal.
    :param rsync_daemon: answer rsync's daemon protocol by the control directory's configuration.
    """
    text = f"""#!/bin/sh
command=${{SSH_ORIGINAL_COMMAND-}}
unset SSH_ORIGINAL_COMMAND
. {_quote(control)}/environment
cd "$HOME" || exit 255
case "$command" in
    internal-sftp|internal-sftp\\ *) exec {_quote(sftp_server)} ;;
{_daemon_case(control) if rsync_daemon else ""}esac
"""
    if own_terminals:
        text += """if [ -n "${SSH_TTY-}" ]; then
    # script makes a terminal inside the box, which tmux and tty can name.
    unset SSH_TTY
    if [ -z "$command" ]; then command='exec "$SHELL" -l'; fi
    exec script --quiet --return --command "$command" /dev/null
fi
"""
    return (
        text
        + """if [ -z "$command" ]; then exec "$SHELL" -l; fi
exec "$SHELL" -c "$command"
"""
    )


def _daemon_case(control: PurePosixPath) -> str:
    serve = f"rsync --server --daemon --config={_quote(control)}/rsyncd.conf ."
    return f"    'rsync --server --daemon .') exec {serve} ;;\n"


@dataclass(frozen=True)
class Door:
    """A box's sshd.

    :param home: an empty directory; a login shell outside the box finds no start-up file there.
    :param command: forced on every session.
    """

    ports: Sequence[int]
    login: str
    host_key: PurePath
    authorized_keys: PurePath
    home: PurePath
    command: str


def render_sshd_config(door: Door, version: tuple[int, int], locked_account: bool) -> str:
    """Configuration of one box's own sshd.

    :param version: of OpenSSH; options that older releases refuse are left out.
    :param locked_account: sshd refuses a locked account unless PAM decides.
    """
    lines = [f"Port {port}" for port in door.ports]
    lines += [
        "ListenAddress 127.0.0.1",
        f"HostKey {_sshd_path(door.host_key)}",
        f"AuthorizedKeysFile {_sshd_path(door.authorized_keys)}",
        "PidFile none",
        "StrictModes no",
        f"AllowUsers {door.login}",
        "PermitRootLogin prohibit-password",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        f"UsePAM {'yes' if locked_account else 'no'}",
        "UseDNS no",
        "PermitUserRC no",
        "PrintMotd no",
        "PrintLastLog no",
        "X11Forwarding no",
        "AllowAgentForwarding no",
        "AllowTcpForwarding local",
        "MaxStartups 200",
        "MaxSessions 200",
        "LoginGraceTime 30",
        "AcceptEnv LANG LC_*",
        f'SetEnv "HOME={door.home}"',
        "Subsystem sftp internal-sftp",
        f"ForceCommand {door.command}",
    ]
    if version >= (9, 8):
        lines.append("PerSourcePenalties no")
    return "\n".join(lines) + "\n"


def render_etc(account: Account = ROOT) -> dict[str, str]:
    """Files of a box's /etc that are the box's own."""
    user = "" if account.is_root else f"{account.passwd_line()}\n"
    group = "" if account.is_root else f"{account.name}:x:{account.number}:\n"
    return {
        "passwd": (
            "root:x:0:0:root:/root:/bin/bash\n"
            "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
            "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
            f"{user}"
        ),
        "group": f"root:x:0:\ndaemon:x:1:\ntty:x:5:\nnogroup:x:65534:\n{group}",
        "profile": f". {CONTROL_IN_BOX}/environment\nPS1='\\u@\\h:\\w# '\n",
        "shells": "/bin/sh\n/bin/bash\n",
    }


# Files of the machine's /etc that programs in a box need, copied when the disk is made; none holds a secret.
ETC_COPIED = (
    "ld.so.cache",
    "ld.so.conf",
    "nsswitch.conf",
    "resolv.conf",
    "hosts",
    "services",
    "protocols",
    "mime.types",
    "os-release",
    "debian_version",
    "localtime",
    "timezone",
    "inputrc",
)


def _quote(path: object) -> str:
    return shlex.quote(str(path))


def _sshd_path(path: PurePath) -> str:
    return '"' + str(path).replace("%", "%%") + '"'
