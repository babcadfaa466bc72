# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The place where files are to arrive, judged before the first byte: where it lies, what it may hold, who uses it.

Runs on the box too, for what is pushed there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import socket
import tempfile
import time
from typing import Any, Iterator, Mapping, Sequence

from .box import disk_use
from .box.records import utc_now
from .failures import TenantFailure
from .quota import binding_quotas
from .roster import INCOMING, LOCK, RosterFile, folded_twins, folders_of

_UNLIMITED = -1
_SPARE_INODES = 16
_PROBE_BYTES = b"\0" * 4096
_PROBE_PREFIX = ".tenant-probe-"
_NO_UNNAMED_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.ENOSYS)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_PAUSE_S = 0.1
_SAFE = "Nothing was transferred or removed"
_REFUSALS = {
    errno.EROFS: "is read-only",
    errno.EACCES: "may not be written to by this user",
    errno.EPERM: "may not be written to by this user",
    errno.ENOSPC: "is full: not even one block can be written",
    errno.EDQUOT: "is full: the quota is used up",
}


class BadDestination(Exception):
    """A destination that must not be used; the text names it and says why."""


def confine(root: str, within: str) -> None:
    """BadDestination unless ``root``, symlinks followed, lies in ``within``. An empty ``within`` confines nothing."""
    if not os.path.isabs(root):
        raise BadDestination(f"{root} is not an absolute path")
    real, outer = os.path.realpath(root), os.path.realpath(within) if within else "/"
    if real != outer and not real.startswith(outer.rstrip("/") + "/"):
        raise BadDestination(f"{root} is not inside {within}")


# --- room ---------------------------------------------------------------------------------------------------------


def room(root: str, wanted: Sequence[RosterFile] = (), dry: bool = True, inode_cap: int = 0) -> dict[str, Any]:
    """What may still be written where ``root`` is or will be. Counts are -1 where nothing is counted.

    ``staged_bytes`` arrived in an earlier run. ``limits`` are those beside the filesystem's own: quotas, and
    ``inode_cap``, a known cap on the files of the mount. ``problem`` says why none of ``wanted`` could be written at
    all; empty when they could.

    :param dry: leave not even the trace of a probe; what only a probe can tell is then found by the real run.
    """
    existing = _nearest_folder(root)
    numbers = os.statvfs(existing)
    return {
        "path": existing,
        "free_bytes": numbers.f_bavail * numbers.f_frsize,
        "free_inodes": numbers.f_favail if numbers.f_files else _UNLIMITED,
        "block_bytes": numbers.f_frsize,
        "staged_bytes": _bytes_under(os.path.join(root, INCOMING)) if wanted else 0,
        "limits": binding_quotas(existing) + ([_cap(existing, inode_cap)] if inode_cap else []),
        "problem": (_write_problem(existing, dry) or _twins_problem(existing, wanted, dry)) if wanted else "",
    }


def _nearest_folder(root: str) -> str:
    existing = os.path.abspath(root)
    while not os.path.isdir(existing):
        if os.path.lexists(existing):
            raise BadDestination(f"{existing} is not a folder, so nothing can be put into {root}")
        existing = os.path.dirname(existing)
    return existing


def _bytes_under(folder: str) -> int:
    """What the files below ``folder`` take on the disk."""
    total = 0
    for parent, _folders, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
    return total


def _cap(folder: str, cap: int) -> dict[str, Any]:
    mount = disk_use.mount_point(folder)
    there = 0
    with contextlib.suppress(OSError):
        there = sum(1 for _entry in itertools.islice(disk_use.entries(mount), cap))
    return {
        "what": f"the {cap} files that {mount} may hold",
        "free_bytes": _UNLIMITED,
        "free_inodes": max(0, cap - there),
    }


def _write_problem(folder: str, dry: bool) -> str:
    """Why nothing can be written in ``folder``: tried, because root passes every look at permissions."""
    try:
        try:
            _write_unnamed(folder)
        except OSError as error:
            if error.errno not in _NO_UNNAMED_FILES:
                raise
            if not dry:
                _write_named(folder)
            elif not os.access(folder, os.W_OK | os.X_OK):
                return f"{folder} {_REFUSALS[errno.EACCES]}"
    except OSError as error:
        return f"{folder} {_REFUSALS.get(error.errno or 0, f'cannot be written to ({error.strerror})')}"
    return ""


def _write_unnamed(folder: str) -> None:
    """Write a block to a file without a name: nothing is left behind, and not even the folder's time changes."""
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None:
        raise OSError(errno.EOPNOTSUPP, "no unnamed files")
    descriptor = os.open(folder, flag | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, _PROBE_BYTES)
    finally:
        os.close(descriptor)


def _write_named(folder: str) -> None:
    with tempfile.NamedTemporaryFile(prefix=_PROBE_PREFIX, dir=folder) as probe:
        probe.write(_PROBE_BYTES)
        probe.flush()


def _twins_problem(folder: str, wanted: Sequence[RosterFile], dry: bool) -> str:
    """The first two paths of ``wanted`` that would be one here, because the filesystem folds their names."""
    # What only a probe can tell is not even looked for where none may be made.
    twins = [] if dry else folded_twins(wanted)
    if not twins:
        return ""
    with tempfile.TemporaryDirectory(prefix=_PROBE_PREFIX, dir=folder) as probe:
        for first, second in twins:
            one, other = (os.path.join(probe, path.rsplit("/", 1)[-1]) for path in (first, second))
            os.mkdir(one)
            if os.path.lexists(other):
                return (
                    f"{folder} takes {first!r} and {second!r} for one name, so one would overwrite the other: "
                    "rename one of them on the box, or use a filesystem that tells them apart"
                )
            os.rmdir(one)
    return ""


def room_problem(
    files: Sequence[RosterFile], room: Mapping[str, Any], reserve_bytes: int, in_place: bool = False
) -> str:
    """Why ``files`` do not fit where ``room`` was measured, perhaps by a box; empty when they do.

    :param in_place: what arrived before is continued where it lies. rsync makes a new file of it and so needs its room
        a second time.
    """
    if not files:
        return ""
    try:
        return str(room["problem"]) or _shortage(files, room, reserve_bytes, in_place)
    except (KeyError, TypeError, ValueError, OverflowError):
        return "it cannot be said how much room there is: the answer of the far side makes no sense"


def _shortage(files: Sequence[RosterFile], room: Mapping[str, Any], reserve_bytes: int, in_place: bool) -> str:
    block = max(1, int(room["block_bytes"]))
    # A file takes whole blocks: thousands of small ones need much more than the sum of their sizes.
    wanted = sum(-(-file.bytes // block) * block for file in files)
    if in_place:
        wanted = max(0, wanted - max(0, int(room["staged_bytes"])))
    # Each folder is made where files arrive, for what was cut, and in its place.
    inodes = len(files) + 3 * len(folders_of(files)) + _SPARE_INODES
    for limit in [dict(room, what=room["path"]), *room["limits"]]:
        free_bytes, free_inodes, what = int(limit["free_bytes"]), int(limit["free_inodes"]), str(limit["what"])
        if 0 <= free_bytes < wanted + reserve_bytes:
            return (
                f"{wanted} bytes are to come and {reserve_bytes} to stay free, but only {free_bytes} are free at {what}"
            )
        if 0 <= free_inodes < inodes:
            return f"{inodes} inodes are needed, but only {free_inodes} are free at {what}"
    return ""


def proxy_problem(files: Sequence[RosterFile], limit_bytes: int) -> str:
    """Why these files should not go through a proxied connection; empty when they may."""
    wanted = sum(file.bytes for file in files)
    if wanted <= limit_bytes:
        return ""
    return f"{wanted} bytes would go through the platform's ssh proxy, which is meant for {limit_bytes} at most"


# --- one transfer at a time ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def held(root: str, wait_s: float = 0.0) -> Iterator[None]:
    """Make ``root`` and hold it, so that no two transfers work in it at once; the kernel lets go when we die.

    :raises TenantFailure: ``lease_held``, naming the holder, when it does not let go within ``wait_s`` seconds;
        ``config`` when the folder cannot be made.
    """
    path = os.path.join(root, LOCK)
    try:
        os.makedirs(root, mode=0o700, exist_ok=True)
        descriptor = _lock(path, root, wait_s)
    except OSError as error:
        what = f"{error.filename or root} cannot be used ({error.strerror})"
        raise TenantFailure("config", what, safe=_SAFE, fix="Choose another destination") from error
    try:
        with contextlib.suppress(OSError):  # a full disk has room for the lock, if not for the holder's name
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()} since {utc_now()}".encode(), 0)
        yield
    finally:
        # Removed while still held: whoever waits for this file then sees that its name is gone, and makes a new one.
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(descriptor)


def refuse_if_held(root: str) -> None:
    """TenantFailure ``lease_held`` when another transfer works in ``root`` now. Leaves no trace."""
    try:
        descriptor = os.open(os.path.join(root, LOCK), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not _try_lock(descriptor, fcntl.LOCK_SH):
            raise _held_by_another(root, descriptor)
    finally:
        os.close(descriptor)


def _lock(path: str, root: str, wait_s: float) -> int:
    deadline = time.monotonic() + wait_s
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        locked = _try_lock(descriptor)
        if locked and _is_named(descriptor, path):
            return descriptor
        refusal = _held_by_another(root, descriptor)
        os.close(descriptor)
        if not locked:
            if time.monotonic() >= deadline:
                raise refusal
            time.sleep(_PAUSE_S)


def _held_by_another(root: str, descriptor: int) -> TenantFailure:
    holder = ascii(os.pread(descriptor, 200, 0).decode("utf-8", "replace"))[1:-1]
    what = f"another transfer works in {root} ({holder or 'it just began'})"
    return TenantFailure("lease_held", what, safe=_SAFE, fix="Wait until it has ended, then run this again")


def _try_lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        # Without locks two transfers at once waste work, but still only right bytes ever leave the staging folder.
        return error.errno in _NO_LOCKS
    return True


def _is_named(descriptor: int, path: str) -> bool:
    """Whether ``path`` still names the open file: its former holder removes it."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False
