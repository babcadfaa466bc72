# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The receiving end of a transfer, on either side: survey what is there, stage what comes, settle what is right.

Bytes arrive in ``<root>/.tenant-incoming`` and move to their place only after their hash was compared, so a file
outside that folder was right when it was put there.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
import stat
import subprocess
import sys
import time
from typing import Any, Iterable, Sequence

from .box.names import UnsafeName, inside
from .box.records import fsync_directory
from .roster import (
    INCOMING,
    QUARANTINE,
    RESERVED,
    Mismatch,
    RosterFile,
    check_file,
    check_files,
    check_path,
    extra_files,
    hash_regular_file,
)
from .transfer import modern_rsync


class UnsafeTree(Exception):
    """A tree that must not be sent or received; the text names the entry."""


def scan_tree(root: str, excludes: Sequence[str] = ()) -> tuple[RosterFile, ...]:
    """The roster of a folder here, every file hashed. UnsafeTree for a symlink, a device, or an unsafe name.

    :param excludes: shell patterns, compared with each name and with each relative path.
    """
    if not os.path.isdir(root):
        raise UnsafeTree(f"{root} is not a folder")
    found = []
    for folder, folders, names in os.walk(root, onerror=_raise):
        prefix = "" if folder == root else os.path.relpath(folder, root) + "/"
        folders[:] = sorted(name for name in folders if not _excluded(prefix + name, excludes))
        if not prefix:
            folders[:] = [name for name in folders if name not in RESERVED]
            names = [name for name in names if name not in RESERVED]
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        if links:
            raise UnsafeTree(f"{prefix}{links[0]} is a symlink: links are never sent; replace it or exclude it")
        found += [_scan_file(root, prefix + name) for name in sorted(names) if not _excluded(prefix + name, excludes)]
    return tuple(sorted(found, key=lambda file: file.path))


def _raise(error: OSError) -> None:
    raise UnsafeTree(f"cannot read {error.filename}: {error.strerror}")


def _excluded(path: str, excludes: Iterable[str]) -> bool:
    name = path.rsplit("/", 1)[-1]
    return any(fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(path, pattern) for pattern in excludes)


def _scan_file(root: str, path: str) -> RosterFile:
    try:
        whole = os.path.join(root, check_path(path))
        size, sha256 = hash_regular_file(whole)
        executable = bool(os.stat(whole).st_mode & stat.S_IXUSR)
    except UnsafeName as error:
        raise UnsafeTree(str(error)) from error
    except ValueError as error:
        raise UnsafeTree(f"{path} {error}: only regular files that stand still are sent") from error
    return RosterFile(path, size, sha256, executable=executable)


def room(root: str) -> dict[str, Any]:
    """Free bytes and inodes where ``root`` is or will be; free_inodes is -1 where they are not counted."""
    existing = os.path.abspath(root)
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing)
    numbers = os.statvfs(existing)
    inodes = numbers.f_favail if numbers.f_files else -1
    return {"path": existing, "free_bytes": numbers.f_bavail * numbers.f_frsize, "free_inodes": inodes}


def survey(root: str, files: Sequence[RosterFile]) -> tuple[list[str], list[str]]:
    """(paths of ``files`` that are right already, by re-reading them; paths that nobody promised)."""
    if not os.path.isdir(root):
        return [], []
    wrong = {mismatch.path for mismatch in check_files(root, files)}
    return [file.path for file in files if file.path not in wrong], extra_files(root, files)


def offered(root: str, files: Sequence[RosterFile]) -> list[Mismatch]:
    """What keeps ``files`` from being fetched from ``root``, by type and size alone: the hashes come later."""
    return [mismatch for mismatch in (_offered(root, file) for file in files) if mismatch is not None]


def _offered(root: str, file: RosterFile) -> Mismatch | None:
    try:
        facts = os.lstat(inside(root, file.path))
    except UnsafeName:
        return Mismatch(file.path, "leads out of its folder through a symlink")
    except OSError:
        return Mismatch(file.path, "is missing")
    if stat.S_ISLNK(facts.st_mode):
        return Mismatch(file.path, "is a symlink")
    if not stat.S_ISREG(facts.st_mode):
        return Mismatch(file.path, "is not a regular file")
    if facts.st_size != file.bytes:
        return Mismatch(file.path, f"has {facts.st_size} bytes, the manifest says {file.bytes}")
    return None


def staging(root: str) -> str:
    return os.path.join(root, INCOMING)


def open_staging(root: str, files: Iterable[RosterFile]) -> str:
    """Make the staging folder and every folder that ``files`` need in it; returns its path."""
    folder = staging(root)
    if os.path.islink(folder):
        raise UnsafeTree(f"{folder} is a symlink: remove it")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for parent in sorted({os.path.dirname(file.path) for file in files}):
        if parent:
            os.makedirs(inside(folder, parent), exist_ok=True)
    return folder


def settle(root: str, files: Sequence[RosterFile]) -> tuple[list[str], list[Mismatch]]:
    """Move every staged file whose bytes are right to its place; (paths moved, what is wrong with the others).

    A wrong file is removed from the staging folder, so that it is not taken for a good beginning.
    """
    folder = staging(root)
    settled: list[str] = []
    mismatches: list[Mismatch] = []
    for file in files:
        mismatch = check_file(folder, file) or _move(folder, root, file)
        if mismatch is None:
            settled.append(file.path)
        else:
            mismatches.append(mismatch)
            _discard(folder, file)
    for parent in sorted({os.path.dirname(path) for path in settled}):
        fsync_directory(os.path.join(root, parent))
    return settled, mismatches


def _move(folder: str, root: str, file: RosterFile) -> Mismatch | None:
    try:
        source, target = inside(folder, file.path), inside(root, file.path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        _make_durable(source, file.executable)
        os.replace(source, target)
    except UnsafeName:
        return Mismatch(file.path, "leads out of its folder through a symlink")
    except OSError as error:
        return Mismatch(file.path, f"cannot be put in its place ({error.strerror})")
    return None


def _make_durable(path: str, executable: bool) -> None:
    """Bytes on disk before the name says that they are; permissions are ours, never the sender's."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, (0o777 if executable else 0o666) & ~_umask())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current


def _discard(folder: str, file: RosterFile) -> None:
    try:
        path = inside(folder, file.path)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)
    except UnsafeName:
        # A planted symlink leads out: the whole staging folder is suspect, and removing it follows no link.
        shutil.rmtree(folder, ignore_errors=True)


def close_staging(root: str) -> None:
    """Remove the staging folder and what is left in it; symlinks are removed, not followed."""
    shutil.rmtree(staging(root), ignore_errors=True)


def quarantine(root: str, paths: Sequence[str]) -> str:
    """Move ``paths`` aside under ``<root>/.tenant-quarantine/<time>``; returns that folder. Nothing is deleted."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    folder = os.path.join(root, QUARANTINE, stamp)
    serial = 1
    while os.path.exists(folder):
        folder = os.path.join(root, QUARANTINE, f"{stamp}-{serial}")
        serial += 1
    for path in paths:
        target = os.path.join(folder, path)
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        os.rename(os.path.join(root, path), target)
        _remove_empty_parents(root, os.path.dirname(path))
    return folder


def _remove_empty_parents(root: str, relative: str) -> None:
    while relative:
        try:
            os.rmdir(os.path.join(root, relative))
        except OSError:
            return
        relative = os.path.dirname(relative)


# --- what the far end is asked ------------------------------------------------------------------------------------


def rsync_problem() -> str:
    """Empty when this machine has a usable rsync, else why not."""
    if shutil.which("rsync") is None:
        return "rsync is not installed (package rsync)"
    # There is no AnsibleModule here whose run_command could be used: this also runs without Ansible.
    answer = subprocess.run(["rsync", "--version"], capture_output=True, text=True, timeout=30, check=False)  # pylint: disable=ansible-bad-function
    return "" if modern_rsync(answer.stdout) else "the rsync here is not version 3 (package rsync)"


def confine(root: str, within: str) -> None:
    """UnsafeTree unless ``root``, symlinks followed, lies in ``within``. An empty ``within`` confines nothing."""
    if not os.path.isabs(root):
        raise UnsafeTree(f"{root} is not an absolute path")
    real, outer = os.path.realpath(root), os.path.realpath(within) if within else "/"
    if real != outer and not real.startswith(outer.rstrip("/") + "/"):
        raise UnsafeTree(f"{root} is not inside {within}")


def answer_offer(root: str, files: Sequence[RosterFile]) -> dict[str, Any]:
    """For a sender: what keeps it from sending ``files``, and by which means it could."""
    mismatches = offered(root, files)
    return {"mismatches": as_dicts(mismatches), "rsync_problem": rsync_problem(), "python": sys.executable}


def answer_survey(root: str, files: Sequence[RosterFile], within: str, dry: bool) -> dict[str, Any]:
    """For a receiver: what is right already, what is extra, what room there is. Opens the staging folder unless dry."""
    confine(root, within)
    good, extra = survey(root, files)
    wanted = [file for file in files if file.path not in set(good)]
    if wanted and not dry:
        os.makedirs(root, exist_ok=True)
        open_staging(root, wanted)
    return {
        "good": good,
        "extra": extra,
        "room": room(root),
        "staging": staging(root),
        "rsync_problem": rsync_problem(),
        "python": sys.executable,
    }


def answer_settle(root: str, files: Sequence[RosterFile], within: str, aside: Sequence[str]) -> dict[str, Any]:
    """For a receiver: settle, and once nothing is missing set ``aside`` extra files and close the staging folder."""
    confine(root, within)
    settled, mismatches = settle(root, files)
    moved_to = ""
    if not mismatches:
        extra = set(extra_files(root, files)) if aside else set()
        moved_to = quarantine(root, [path for path in aside if path in extra]) if extra else ""
        close_staging(root)
    return {"settled": settled, "mismatches": as_dicts(mismatches), "quarantine": moved_to}


def as_dicts(mismatches: Iterable[Mismatch]) -> list[dict[str, str]]:
    return [{"path": mismatch.path, "what": mismatch.what} for mismatch in mismatches]
