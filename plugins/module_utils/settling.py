# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Reading files against their promise, and moving those that keep it from the staging folder to their place.

A folder is resolved once for all its files, and its files are then named relative to the open folder: that is fast, and
what is looked at is what is moved.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from typing import Any, Dict, Iterable, Iterator, Mapping, Sequence

from .box.hashing import Identity, hash_open, identity
from .box.names import UnsafeName, inside
from .box.spread import FILE_COST, spread
from .roster import INCOMING, RESERVED_PREFIX, Mismatch, RosterFile, not_regular

MISSING = "is missing"
LEADS_OUT = "leads out of its folder through a symlink"
CHANGED = "changed while it was read"
OTHER_BYTES = "has other bytes than promised (its SHA-256 differs)"

# Below the staging folder: rsync's temporary files, and what a stream noted of what it received.
TEMPORARY = RESERVED_PREFIX + "temporary"
EVIDENCE = os.path.join(TEMPORARY, "evidence.json")

# Follows no link and waits for no writer of a FIFO.
_TO_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

# SHA-256 of files as they arrived; worth something only while the file still has that identity.
Evidence = Dict[Identity, str]


def staging(root: str) -> str:
    return os.path.join(root, INCOMING)


def open_folder(root: str, parent: str, make: bool = False) -> int:
    """A descriptor of ``root/parent``. UnsafeName when a symlink leads out of ``root``, OSError when it is absent."""
    path = inside(root, parent) if parent else root
    if make:
        os.makedirs(path, exist_ok=True)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def by_folder(files: Iterable[RosterFile]) -> Iterator[tuple[str, list[RosterFile]]]:
    """``files`` in groups of neighbours that lie in one folder."""
    parent = ""
    group: list[RosterFile] = []
    for file in files:
        folder = file.path.rpartition("/")[0]
        if folder != parent and group:
            yield parent, group
            group = []
        parent = folder
        group.append(file)
    if group:
        yield parent, group


def name_of(file: RosterFile) -> str:
    return file.path.rpartition("/")[2]


# --- reading ------------------------------------------------------------------------------------------------------


def read_promise(folder: int, file: RosterFile, evidence: Mapping[Identity, str]) -> tuple[str, os.stat_result | None]:
    """(what is wrong with ``file`` in the open folder, empty when nothing is; what was found).

    It is opened before it is looked at: what was looked at is then what is read, and thousands of files cost a system
    call less each.
    """
    name = name_of(file)
    try:
        descriptor = os.open(name, _TO_READ, dir_fd=folder)
    except OSError as error:
        return _unopened(folder, name, error), None
    try:
        facts = os.fstat(descriptor)
        return _unlike(descriptor, facts, file, evidence), facts
    except OSError as error:
        return _unreadable(error), None
    finally:
        os.close(descriptor)


def _unlike(descriptor: int, facts: os.stat_result, file: RosterFile, evidence: Mapping[Identity, str]) -> str:
    if not stat.S_ISREG(facts.st_mode):
        return not_regular(facts.st_mode)
    if facts.st_size != file.bytes:
        return f"has {facts.st_size} bytes, {file.bytes} were promised"
    known = evidence.get(identity(facts)) if evidence else None
    if known is None:
        count, known = hash_open(descriptor, file.bytes)
        # What was promised was there, whatever becomes of it. Other bytes may have been written meanwhile.
        if count != file.bytes or (known != file.sha256 and identity(os.fstat(descriptor)) != identity(facts)):
            return CHANGED
    return "" if known == file.sha256 else OTHER_BYTES


def _unopened(folder: int, name: str, error: OSError) -> str:
    """Links and sockets cannot be opened so."""
    with contextlib.suppress(OSError):
        kind = not_regular(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
        if kind:
            return kind
    return _unreadable(error)


def _unreadable(error: OSError) -> str:
    return MISSING if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"


def _hash(folder: int, name: str, expected: os.stat_result) -> str:
    """SHA-256 of a file that stood still and is the one that was looked at; empty when it did not or is not."""
    descriptor = os.open(name, _TO_READ, dir_fd=folder)
    try:
        count, sha256 = hash_open(descriptor, expected.st_size)
        after = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    stood_still = identity(after) == identity(expected) and count == after.st_size
    return sha256 if stood_still else ""


def check_file(root: str, file: RosterFile) -> str:
    """What is wrong with ``root/file.path``, completing "<path> …"; empty when it has the promised size and hash.

    How many names a file has does not matter: checkpoint writers link ``latest`` to a step, and caches link everything.
    A link leads to bytes of the machine it lies on, which the machine could send anyway, and what arrives is a copy.
    """
    return next(check_share(root, [file]))


def check_files(root: str, files: Sequence[RosterFile]) -> list[Mismatch]:
    """Every promise of ``files`` that ``root`` does not keep, by re-reading every byte, on every core."""
    found = spread(files, _costs(files), lambda share: list(check_share(root, share)))
    return [Mismatch(file.path, what) for file, what in zip(files, found) if what]


def _costs(files: Sequence[RosterFile]) -> list[int]:
    return [file.bytes + FILE_COST for file in files]


def check_share(root: str, files: Sequence[RosterFile]) -> Iterator[str]:
    """What :func:`check_file` says of each, one after the other."""
    for parent, group in by_folder(files):
        try:
            folder = open_folder(root, parent)
        except UnsafeName:
            yield from [LEADS_OUT] * len(group)
            continue
        except OSError as error:
            yield from [_unreadable(error)] * len(group)
            continue
        try:
            for file in group:
                yield read_promise(folder, file, {})[0]
        finally:
            os.close(folder)


def hash_tree_files(root: str, paths: Sequence[str]) -> list[tuple[str, int, str, bool]]:
    """For each path: (what keeps it from being read, bytes, SHA-256, whether its owner may execute it)."""
    costs = [_size(os.path.join(root, path)) + FILE_COST for path in paths]
    found = spread(paths, costs, lambda share: [_hash_one(os.path.join(root, path)) for path in share])
    return list(found)


def _size(path: str) -> int:
    with contextlib.suppress(OSError):
        return os.lstat(path).st_size
    return 0


def _hash_one(path: str) -> tuple[str, int, str, bool]:
    try:
        facts = os.lstat(path)
        if not stat.S_ISREG(facts.st_mode):
            return not_regular(facts.st_mode), 0, "", False
        folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sha256 = _hash(folder, os.path.basename(path), facts)
        finally:
            os.close(folder)
    except OSError as error:
        return _unreadable(error), 0, "", False
    return ("" if sha256 else CHANGED), facts.st_size, sha256, bool(facts.st_mode & stat.S_IXUSR)


# --- moving -------------------------------------------------------------------------------------------------------


class Settler:
    """Moves files of one transfer from its staging folder to their place, one after the other."""

    def __init__(self, root: str, evidence: Evidence | None = None) -> None:
        self.root = root
        self.evidence: Evidence = {} if evidence is None else evidence
        self._mode = 0o666 & ~_umask()
        self._parent: str | None = None
        self._source = self._target = -1

    def __enter__(self) -> Settler:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        for descriptor in (self._source, self._target):
            if descriptor >= 0:
                os.close(descriptor)
        self._source = self._target = -1
        self._parent = None

    def enter(self, file: RosterFile) -> int:
        """Open the folders that ``file`` goes from and to; the staged one's descriptor. UnsafeName, OSError."""
        parent = file.path.rpartition("/")[0]
        if parent != self._parent:
            self.close()
            self._source = open_folder(staging(self.root), parent)
            self._target = open_folder(self.root, parent, make=True)
            self._parent = parent
        return self._source

    def settle(self, file: RosterFile) -> str:
        """Empty when the staged file was right and now is in its place, else what is wrong with it."""
        try:
            what, facts = read_promise(self.enter(file), file, self.evidence)
        except UnsafeName:
            return LEADS_OUT
        except OSError as error:
            return _unreadable(error)
        return what if what or facts is None else self._move(file, facts.st_mode, name_of(file))

    def move(self, file: RosterFile, mode: int, source_name: str = "") -> str:
        """Move a staged file whose bytes are known to be right; empty when it is in its place, else why not.

        Permissions are ours, never the sender's.
        """
        try:
            self.enter(file)
        except UnsafeName:
            return LEADS_OUT
        except OSError as error:
            return _unmoved(error)
        return self._move(file, mode, source_name or name_of(file))

    def _move(self, file: RosterFile, mode: int, source_name: str) -> str:
        """From and to the folders that are open."""
        wanted = _runnable(self._mode) if file.executable else self._mode
        try:
            if stat.S_IMODE(mode) != wanted:
                _set_mode(self._source, source_name, wanted)
            os.rename(source_name, name_of(file), src_dir_fd=self._source, dst_dir_fd=self._target)
        except OSError as error:
            return _unmoved(error)
        return ""


def _unmoved(error: OSError) -> str:
    return f"cannot be put in its place ({error.strerror})"


def _runnable(mode: int) -> int:
    """Who may read it may execute it."""
    return mode | (mode & 0o444) >> 2


def make_executable(folder: int, name: str) -> None:
    """For a file in an open folder."""
    _set_mode(folder, name, _runnable(0o666 & ~_umask()))


def _set_mode(folder: int, name: str, mode: int) -> None:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current


def settle(
    root: str, files: Sequence[RosterFile], evidence: Evidence | None = None
) -> tuple[list[str], list[Mismatch]]:
    """Move every staged file whose bytes are right to its place; (paths moved, what is wrong with the others).

    A wrong file is removed from the staging folder, so that it is not taken for a good beginning.
    """
    known: Evidence = evidence or {}
    found = spread(files, _costs_beyond(files, known), lambda share: _settle_share(root, share, known))
    settled = [file.path for file, what in zip(files, found) if not what]
    return settled, [Mismatch(file.path, what) for file, what in zip(files, found) if what]


def _costs_beyond(files: Sequence[RosterFile], evidence: Evidence) -> list[int]:
    """What is left to do; large files whose hash is known cost no more than a rename."""
    known = set(evidence.values())
    return [FILE_COST // 2 + (0 if file.sha256 in known else file.bytes) for file in files]


def _settle_share(root: str, files: Sequence[RosterFile], evidence: Evidence) -> list[str]:
    found = []
    with Settler(root, evidence) as settler:
        for file in files:
            found.append(settler.settle(file))
            if found[-1] not in ("", MISSING):
                discard(staging(root), file)
    return found


def discard(folder: str, file: RosterFile) -> None:
    """Remove what is staged for ``file``; no link is followed."""
    try:
        path = inside(folder, file.path)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)
    except UnsafeName:
        # A planted symlink leads out: the whole staging folder is suspect, and removing it follows no link.
        shutil.rmtree(folder, ignore_errors=True)


def as_dicts(mismatches: Iterable[Mismatch]) -> list[dict[str, Any]]:
    return [{"path": mismatch.path, "what": mismatch.what} for mismatch in mismatches]
