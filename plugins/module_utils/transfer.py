# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Planning a transfer: argument vectors, and what a failed attempt means. Pure; nothing here touches a disk.

The far end is hostile: it gets a fixed argument vector, only paths of a validated roster are asked for, and neither
links, devices, owners nor permissions are taken from it.
"""

from __future__ import annotations

import errno
import re
import shlex
from dataclasses import dataclass
from typing import Iterable, Iterator, Sequence

from .box.names import printable
from .failures import TenantFailure
from .roster import RosterFile
from .settling import TEMPORARY
from .ssh_log import refuses_key, was_denied

PARTIAL_DIR = ".tenant-partial"
# Below this, riding on the play's open connection is cheaper than a handshake; above it, its compression costs more.
BULK_BYTES = 32 * 1024 * 1024
_HOST = re.compile(r"[A-Za-z0-9_\[][A-Za-z0-9_.:\[\]-]{0,252}\Z")
_STATISTIC = re.compile(rb"^Literal data: ([0-9,.]+) bytes", re.MULTILINE)
_TEXT_ENDINGS = (".txt", ".log", ".out", ".err", ".json", ".jsonl", ".csv", ".tsv", ".yaml", ".yml", ".toml", ".xml")
_TEXT_ROLES = ("log", "metrics")
# Less text than this crosses the wire sooner than it is worth a connection of its own.
_WORTH_COMPRESSING = 4 * 1024 * 1024
_MANY = 1000
SMALL_BYTES = 256 * 1024
_MULTIPLEX = ("controlmaster", "controlpath", "controlpersist")

# rsync(1), EXIT VALUES: those after which a second attempt can end better.
_TRANSIENT = {
    10: "socket error",
    12: "the stream broke",
    # ssh makes the standard error that it shares with rsync non-blocking: a box that fills it takes rsync's words away.
    13: "rsync could not print what it had to say",
    20: "it was interrupted",
    23: "some files could not be sent",
    24: "some files vanished",
    30: "no data for too long",
    35: "the daemon did not answer",
    255: "the ssh connection failed",
}
_FINAL = {
    1: "rsync did not understand its options",
    2: "the two rsyncs do not understand each other",
    3: "a path cannot be used",
    4: "the far rsync lacks a feature",
    5: "rsync could not start its protocol",
    11: "a file could not be read or written",
    14: "rsync could not fork",
    22: "not enough memory",
}
NO_MEMORY = 22
# The rest of the files of such a run arrived.
SOME_NOT_SENT = (23, 24)
NO_RSYNC_THERE = 127
_BY_SIGNAL = 128


@dataclass(frozen=True)
class Link:
    """How this controller reaches a box, as the play does.

    ``options`` are ssh arguments of the play, ``control_path`` is the play's open connection (empty when none).
    A ``host`` of "" means this very machine: nothing is put before a command. ``become`` precedes far commands. Into
    ``log`` ssh writes what it has to say itself, apart from what the box says on standard error.
    """

    host: str = ""
    ssh: str = "ssh"
    options: tuple[str, ...] = ()
    control_path: str = ""
    become: tuple[str, ...] = ()
    log: str = ""

    @property
    def is_local(self) -> bool:
        return not self.host


def check_host(host: object) -> str:
    """``host`` if it can stand on an ssh command line as a host and as nothing else."""
    if not isinstance(host, str) or not _HOST.match(host):
        raise TenantFailure(
            "config",
            f"the host {ascii(host)[:80]} cannot be a host name",
            safe="Nothing was connected to",
            fix="See ansible_host of this box",
        )
    return host


def play_options(
    port: object,
    user: str | None,
    key_file: str | None,
    connect_timeout_s: int,
    argument_texts: Iterable[str | None],
) -> tuple[str, ...]:
    """The ssh arguments of a play: its port, user and key, then what its variables add."""
    options: list[str] = []
    if port is not None:
        options += ["-o", f"Port={int(str(port))}"]
    if user:
        options += ["-o", f'User="{user}"']
    if key_file:
        options += ["-o", f'IdentityFile="{key_file}"']
    options += ["-o", f"ConnectTimeout={int(connect_timeout_s)}"]
    for text in argument_texts:
        options += shlex.split(text or "")
    return tuple(options)


def ssh_argv(link: Link, own_connection: bool) -> list[str]:
    """ssh and its arguments up to, not including, the host.

    What stands first wins in ssh, so the host key is always checked, whatever the play's variables say.

    :param own_connection: open a connection of its own, uncompressed, instead of riding on the play's.
    """
    argv = [link.ssh, "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"]
    argv += ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4", "-T", "-x", "-a"]
    options = list(link.options)
    if own_connection:
        argv += ["-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "Compression=no"]
        options = list(without_multiplexing(link.options))
    elif link.control_path:
        argv += ["-o", "ControlMaster=no", "-o", f'ControlPath="{link.control_path}"']
        options = list(without_multiplexing(link.options))
    # Of -E the last one wins.
    return argv + options + (["-E", link.log] if link.log else [])


def without_multiplexing(options: Sequence[str]) -> Iterator[str]:
    """The options less what steers compression and connection sharing."""
    position = 0
    while position < len(options):
        option = options[position]
        if option == "-o" and position + 1 < len(options):
            value = options[position + 1]
            position += 2
            if re.split(r"[=\s]", value.strip(), maxsplit=1)[0].lower() not in _MULTIPLEX:
                yield from (option, value)
            continue
        position += 1
        if option != "-C" and not option.lower().startswith(tuple(f"-o{name}" for name in _MULTIPLEX)):
            yield option


def far_argv(link: Link, command: Sequence[str], own_connection: bool = False) -> list[str]:
    """The argument vector that runs ``command`` on the box, each word of it quoted for the far shell."""
    words = list(link.become) + list(command)
    if link.is_local:
        return words
    return ssh_argv(link, own_connection) + ["--", link.host, shlex.join(words)]


@dataclass(frozen=True)
class RsyncWishes:
    """``stall_timeout_s``: seconds without data; ``limit_kib``: KiB/s, 0 for no limit; ``compress``: on the wire."""

    stall_timeout_s: int
    limit_kib: int = 0
    compress: bool = False


def rsync_argv(
    link: Link,
    pull: bool,
    source: str,
    dest: str,
    wishes: RsyncWishes,
    own_connection: bool,
    followed: bool = False,
    folders: bool = False,
) -> list[str]:
    """rsync for the files that arrive, NUL-separated, on its standard input. Neither -l, -D, -p, -o nor -g.

    ``--ignore-times``: equal size and time prove nothing. ``--partial-dir``: what arrived of a cut file is kept, unless
    whole folders of small ones come.
    ``--no-dirs``: no folders, as every name that is sent is compared with each pattern asked for. The receiver's umask
    does the rest of the permissions.

    :param followed: write in one folder, where the file that grows is found; small files are not worth it.
    :param folders: the names are folders: all that lies in them is to come, what is too large for that excepted.
    """
    argv = ["rsync", "--files-from=-", "--from0", "--no-implied-dirs", "--ignore-times"]
    argv += ["--dirs", f"--max-size={2 * SMALL_BYTES}"] if folders else ["--no-dirs"]
    argv += ["--secluded-args", "--stats", f"--timeout={wishes.stall_timeout_s}"]
    # It is looked for beside each file. A small one is soon sent again.
    argv += [] if folders else [f"--partial-dir={PARTIAL_DIR}"]
    argv += [f"--temp-dir={TEMPORARY}"] if followed else []
    argv += ["--chmod=Du=rwx,F0666", "--no-human-readable"]
    # Names come in blocks: each write of rsync's would wake this process up.
    argv += ["--out-format=%n", "--8-bit-output", "--outbuf=B"] if pull else ["--info=progress2"]
    if wishes.compress:
        argv.append("--compress")
    if wishes.limit_kib:
        argv.append(f"--bwlimit={wishes.limit_kib}")
    if not link.is_local:
        argv += ["--rsh", shlex.join(ssh_argv(link, own_connection))]
    if link.become:
        argv += ["--rsync-path", shlex.join(list(link.become) + ["rsync"])]
    far = (lambda path: path) if link.is_local else (lambda path: f"{_rsync_host(link.host)}:{path}")
    ends = [far(_folder(source)), _folder(dest)] if pull else [_folder(source), far(_folder(dest))]
    return argv + ["--"] + ends


def _rsync_host(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _folder(path: str) -> str:
    return path.rstrip("/") + "/"


def zero_ended(names: Iterable[str]) -> bytes:
    """What ``--files-from`` reads with ``--from0``."""
    return b"".join(name.encode("utf-8") + b"\0" for name in names)


def split_text(files: Sequence[RosterFile]) -> tuple[list[RosterFile], list[RosterFile]]:
    """(text that is worth compressing on its way, the rest). Checkpoints and archives only lose time by it."""
    chosen = {file.path for file in files if _is_text(file)}
    text = [file for file in files if file.path in chosen]
    if sum(file.bytes for file in text) < _WORTH_COMPRESSING:
        return [], list(files)
    return text, [file for file in files if file.path not in chosen]


def _is_text(file: RosterFile) -> bool:
    return file.role != "checkpoint" and (file.role in _TEXT_ROLES or file.path.lower().endswith(_TEXT_ENDINGS))


def many_small(files: Sequence[RosterFile]) -> bool:
    """Whether these are so many files, and so small, that a stream carries them with less work than rsync."""
    return len(files) >= _MANY and sum(file.bytes for file in files) < len(files) * SMALL_BYTES


def literal_bytes(stdout: bytes) -> int | None:
    """Bytes of file data that crossed the wire, from ``--stats``; None when it does not say."""
    match = _STATISTIC.search(stdout)
    return int(re.sub(rb"[^0-9]", b"", match.group(1))) if match else None


def modern_rsync(version_text: str) -> bool:
    """Whether ``rsync --version`` is an rsync 3, which has every option used here."""
    return re.match(r"rsync\s+version\s+v?3\.", version_text) is not None


@dataclass(frozen=True)
class Attempt:
    """How one attempt to move bytes ended; whether they arrived is for the hashes to say.

    ``denied``: the box did not let ssh in.
    """

    transport: str
    status: int
    reason: str = ""
    again: bool = False
    wire_bytes: int | None = None
    kind: str = "unreachable"
    denied: bool = False


def _full(transport: str, status: int) -> Attempt:
    """Waiting makes no room, and the connection is not to blame."""
    return Attempt(transport, status, "the destination is full", kind="config")


def judge_error(transport: str, error: OSError) -> Attempt:
    """What an error of this machine's own disk means."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _full(transport, 1)
    where = f"{error.filename}: " if error.filename else ""
    return Attempt(transport, 1, f"{where}{error.strerror}", kind="config")


def says_full(stderr: bytes) -> bool:
    """Whether somebody says that a disk is full. Behind ssh anybody may say so: this alone proves nothing."""
    return b"No space left on device" in stderr or b"Disk quota exceeded" in stderr


def judge_rsync(status: int, stdout: bytes, stderr: bytes, full: bool = False, log: bytes = b"") -> Attempt:
    """What an exit status of rsync means for the next attempt.

    :param full: the destination is known to be full.
    :param log: what ssh itself said. What stands on ``stderr`` may be the box's words, and ends no attempt for good.
    """
    if status == 0:
        return Attempt("rsync", 0, wire_bytes=literal_bytes(stdout))
    if refuses_key(log):
        return _other_key("rsync", status, log)
    if full:
        return _full("rsync", status)
    if status < 0:
        return Attempt("rsync", status, f"rsync was killed by signal {-status}", again=True)
    if _BY_SIGNAL < status < 255:
        # How a shell says it; a box that runs out of memory ends programs so.
        return Attempt("rsync", status, f"the box's rsync was killed by signal {status - _BY_SIGNAL}", again=True)
    reason = _TRANSIENT.get(status) or _FINAL.get(status) or f"rsync ended with {status}"
    said = _said(log, stderr)
    again = status in _TRANSIENT
    return Attempt("rsync", status, f"{reason} ({said})" if said else reason, again=again, denied=was_denied(log))


def judge_ssh(status: int, stderr: bytes, reason: str, full: bool = False, log: bytes = b"") -> Attempt:
    """What the end of a stream over ssh means; ``reason`` is what the near end noticed, the others as above."""
    if refuses_key(log):
        return _other_key("stream", status, log)
    if full:
        return _full("stream", status)
    said = _said(log, stderr)
    return Attempt("stream", status, f"{reason} ({said})" if said else reason, again=True, denied=was_denied(log))


def _other_key(transport: str, status: int, log: bytes) -> Attempt:
    return Attempt(transport, status, f"the box's host key is not the pinned one ({_tail(log)})")


def _said(log: bytes, stderr: bytes) -> str:
    return " / ".join(said for said in (_tail(log), _tail(stderr)) if said)


def _tail(text: bytes) -> str:
    lines = [line.strip() for line in text.decode("utf-8", "replace").splitlines() if line.strip()]
    return printable(" / ".join(lines[-3:]))[-400:]


def back_off(first_s: float, cap_s: float = 60.0) -> Iterator[float]:
    """Seconds to wait before the second, third, … attempt."""
    wait = first_s
    while True:
        yield min(wait, cap_s)
        wait *= 2


def ended_there(attempt: Attempt) -> bool:
    """Whether the box was there to the end of it, so that it can be asked what is the matter with what did not come."""
    return attempt.status in (0, *SOME_NOT_SENT) or lacks_far_rsync(attempt)


def lacks_far_rsync(attempt: Attempt) -> bool:
    """Whether the box turned out to have no rsync on the PATH that ssh gives."""
    return attempt.status == NO_RSYNC_THERE or "rsync: command not found" in attempt.reason
