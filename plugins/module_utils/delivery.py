# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The receiving end of a transfer, on either side: survey what is there, stage what comes, settle what is right.

Bytes arrive in ``<root>/.tenant-incoming`` and move to their place only after their hash was compared, so a file
outside that folder was right when it was put there.
"""

from __future__ import annotations

import ctypes
import fnmatch
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from typing import Any, Iterable, Mapping, Sequence

from .box.names import UnsafeName, inside
from .destination import BadDestination, confine, room
from .enclosed import land
from .failures import TenantFailure
from .roster import (
    QUARANTINE,
    RESERVED,
    BadManifest,
    Mismatch,
    RosterFile,
    check_path,
    extra_files,
    not_regular,
    parse_files,
)
from .settling import (
    EVIDENCE,
    LEADS_OUT,
    MISSING,
    TEMPORARY,
    Evidence,
    as_dicts,
    check_files,
    hash_tree_files,
    open_folder,
    settle,
    staging,
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
    found: list[str] = []
    for folder, folders, names in os.walk(root, onerror=_raise):
        prefix = "" if folder == root else os.path.relpath(folder, root) + "/"
        folders[:] = sorted(name for name in folders if not _excluded(prefix + name, excludes))
        if not prefix:
            folders[:] = [name for name in folders if name not in RESERVED]
            names = [name for name in names if name not in RESERVED]
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        if links:
            raise UnsafeTree(f"{prefix}{links[0]} is a symlink: links are never sent; replace it or exclude it")
        found += [_sendable(prefix + name) for name in sorted(names) if not _excluded(prefix + name, excludes)]
    found.sort()
    return tuple(_scanned(path, *facts) for path, facts in zip(found, hash_tree_files(root, found)))


def _raise(error: OSError) -> None:
    raise UnsafeTree(f"cannot read {error.filename}: {error.strerror}")


def _excluded(path: str, excludes: Iterable[str]) -> bool:
    name = path.rsplit("/", 1)[-1]
    return any(fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(path, pattern) for pattern in excludes)


def _sendable(path: str) -> str:
    try:
        return check_path(path)
    except UnsafeName as error:
        raise UnsafeTree(str(error)) from error


def _scanned(path: str, what: str, size: int, sha256: str, executable: bool) -> RosterFile:
    if what:
        raise UnsafeTree(f"{path} {what}: only regular files that stand still are sent")
    return RosterFile(path, size, sha256, executable=executable)


def survey(root: str, files: Sequence[RosterFile]) -> tuple[list[str], list[str]]:
    """(paths of ``files`` that are right already, by re-reading them; paths that nobody promised)."""
    if not os.path.isdir(root):
        return [], []
    wrong = {mismatch.path for mismatch in check_files(root, files)}
    return [file.path for file in files if file.path not in wrong], extra_files(root, files)


def by_name(files: Iterable[RosterFile]) -> list[tuple[str, list[tuple[str, int]]]]:
    """``files`` as an offer asks for them: ``[folder, [[name, bytes], …]]``. What is only looked at needs no hash, and
    thousands are asked for in a third of the bytes and half of the time."""
    folders: dict[str, list[tuple[str, int]]] = {}
    for file in files:
        folder, _slash, name = file.path.rpartition("/")
        folders.setdefault(folder, []).append((name, file.bytes))
    return list(folders.items())


def offered(root: str, folders: Iterable[Sequence[Any]]) -> list[Mismatch]:
    """What keeps files from being fetched from ``root``, by type and size alone: the hashes come later.

    :param folders: as :func:`by_name` has them. BadManifest for anything else.
    """
    found = []
    try:
        for parent, names in folders:
            found += [(f"{parent}/{name}" if parent else name, what) for name, what in _offered_in(root, parent, names)]
    except (TypeError, ValueError) as error:
        raise BadManifest("a folder that is asked for has no files with names and sizes") from error
    return [Mismatch(path, what) for path, what in found]


def _offered_in(root: str, parent: str, names: Sequence[Sequence[Any]]) -> list[tuple[str, str]]:
    """(name, problem) of each file of one folder that has one."""
    try:
        folder = open_folder(root, parent)
    except UnsafeName:
        return [(name, LEADS_OUT) for name, _size in names]
    except OSError:
        return [(name, MISSING) for name, _size in names]
    try:
        problems = [(name, _offer_problem(folder, name, size)) for name, size in names]
    finally:
        os.close(folder)
    return [(name, what) for name, what in problems if what]


def _offer_problem(folder: int, name: str, size: int) -> str:
    try:
        facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return MISSING
    if not stat.S_ISREG(facts.st_mode):
        return not_regular(facts.st_mode)
    return "" if facts.st_size == size else f"has {facts.st_size} bytes, the manifest says {size}"


def open_staging(root: str, files: Iterable[RosterFile]) -> str:
    """Make the staging folder and every folder that ``files`` need in it; returns its path."""
    folder = staging(root)
    if os.path.islink(folder):
        raise UnsafeTree(f"{folder} is a symlink: remove it")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    os.makedirs(os.path.join(folder, TEMPORARY), mode=0o700, exist_ok=True)
    for parent in sorted({file.path.rpartition("/")[0] for file in files}):
        if parent:
            os.makedirs(inside(folder, parent), exist_ok=True)
    return folder


def read_evidence(root: str) -> Evidence:
    """What the receiving end of a stream noted while it hashed; nothing when there is no such note, or a broken one."""
    try:
        with open(os.path.join(staging(root), EVIDENCE), "rb") as stream:
            notes = json.loads(stream.read().decode("ascii"))
        return {(int(dev), int(ino), int(size), int(time_ns)): str(sha) for (dev, ino, size, time_ns), sha in notes}
    except (OSError, ValueError, TypeError):
        return {}


def close_staging(root: str) -> None:
    """Remove the staging folder and what is left in it; symlinks are removed, not followed."""
    shutil.rmtree(staging(root), ignore_errors=True)


def flush(root: str) -> None:
    """Every byte under ``root`` on its disk before this returns, so that a record may say that it is there."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if syncfs is not None:
            # One call for the whole filesystem: thousands of files cost one wait, not thousands.
            if syncfs(descriptor) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), root)
            return
    finally:
        os.close(descriptor)
    _flush_each(root)


def _flush_each(root: str) -> None:
    for folder, _folders, names in os.walk(root):
        for path in [os.path.join(folder, name) for name in names] + [folder]:
            if os.path.islink(path):
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


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


def answer_offer(root: str, folders: Iterable[Sequence[Any]]) -> dict[str, Any]:
    """For a sender: what keeps it from sending the files of ``folders``, and by which means it could."""
    mismatches = offered(root, folders)
    return {"mismatches": as_dicts(mismatches), "rsync_problem": rsync_problem(), "python": sys.executable}


def answer_survey(
    root: str,
    files: Sequence[RosterFile],
    within: str,
    dry: bool,
    inode_cap: int = 0,
    contents: Mapping[str, str] | None = None,
    reserve_bytes: int = 0,
) -> dict[str, Any]:
    """For a receiver: what is right already, what is extra, what room there is. Opens the staging folder unless dry.

    :param contents: of small files, which land at once if they are wanted.
    """
    confine(root, within)
    good, extra = survey(root, files)
    right = set(good)
    wanted = [file for file in files if file.path not in right]
    found = room(root, wanted, dry, inode_cap)
    landed: list[str] = []
    if wanted and not dry and not found["problem"]:
        os.makedirs(root, exist_ok=True)
        open_staging(root, wanted)
        landed = land(root, wanted, contents, found, reserve_bytes) if contents else []
        if len(landed) == len(wanted):
            close_staging(root)
    return {
        "good": good,
        "landed": landed,
        "extra": extra,
        "room": found,
        "staging": staging(root),
        # Of no interest where nothing is to come, and a program that has to be started.
        "rsync_problem": rsync_problem() if len(landed) < len(wanted) else "",
        "python": sys.executable,
    }


def answer_settle(root: str, files: Sequence[RosterFile], within: str, aside: Sequence[str]) -> dict[str, Any]:
    """For a receiver: settle, and once nothing is missing set ``aside`` extra files and close the staging folder."""
    confine(root, within)
    settled, mismatches = settle(root, files, read_evidence(root))
    moved_to = ""
    if not mismatches:
        extra = set(extra_files(root, files)) if aside else set()
        moved_to = quarantine(root, [path for path in aside if path in extra]) if extra else ""
        close_staging(root)
    return {"settled": settled, "mismatches": as_dicts(mismatches), "quarantine": moved_to}


def answer(params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """What the far end of ``checked_sync`` says on the box. TenantFailure when it refuses, naming the path.

    :param params: ``op`` (``offer``: what keeps files from being fetched; ``survey``: hash what is there and open the
        staging folder; ``settle``: hash what arrived and move it to its place), ``root``, ``files``, and, as the op
        needs them, ``within``, ``inode_cap``, ``contents``, ``reserve_bytes`` and ``aside``.
    """
    try:
        return _answer(params, check_mode)
    except (BadDestination, UnsafeTree, UnsafeName, BadManifest, OSError) as error:
        raise TenantFailure(
            "config", f"{params['root']}: {error}", safe="Nothing was put in its place", fix="See the path it names"
        ) from error


def _answer(params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    root = params["root"]
    # A folder below somebody's home: whose, only the box knows.
    within = os.path.expanduser(params.get("within") or "")
    if params["op"] == "offer":
        # Only looked at, so that what the controller has checked already need not be checked again.
        return answer_offer(root, params["files"])
    files = parse_files(params["files"])
    if params["op"] == "survey":
        more = {name: params[name] for name in ("inode_cap", "contents", "reserve_bytes") if name in params}
        return answer_survey(root, files, within, check_mode, **more)
    if check_mode:
        return {"settled": [], "mismatches": [], "quarantine": ""}
    return answer_settle(root, files, within, params.get("aside", ()))
