# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A roster of files: what a manifest promises, and what lies in a folder beyond the promise.

Everything that leaves a box passes through here as text written by a stranger, so a manifest is read whole or refused.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import stat
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterable, Iterator, Mapping, NamedTuple, Sequence

from .box import records
from .box.names import UnsafeName, check_name, check_relative_path

if TYPE_CHECKING:
    from typing import TypeGuard

MANIFEST_NAME = "manifest.json"
# What begins so belongs to the transfer, in whatever folder and however a filesystem folds it.
RESERVED_PREFIX = ".tenant-"
INCOMING = ".tenant-incoming"
QUARANTINE = ".tenant-quarantine"
LOCK = ".tenant-lock"
# Beside a manifest, another one: of checkpoints that it has no successor for.
KEPT = ".tenant-kept.json"
RESERVED = frozenset([MANIFEST_NAME, INCOMING, QUARANTINE, LOCK, KEPT])
# More files than any run has, few enough to be held in memory many times over.
MAX_FILES = 1_000_000
# The largest offset that any filesystem takes.
MAX_BYTES = 2**63 - 1
_KINDS = {stat.S_IFLNK: "a symlink", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class BadManifest(ValueError):
    """A manifest that must not be used; the text says why."""


class RosterFile(NamedTuple):
    """One promised file: ``bytes`` is its size, ``path`` is relative to the roster's root.

    There may be a million of them, and a tuple is made in a fifth of the time of anything else.
    """

    path: str
    bytes: int
    sha256: str
    role: str = "other"
    loader: str = "none"
    executable: bool = False

    def as_dict(self) -> dict[str, Any]:
        return {"path": self.path, "bytes": self.bytes, "sha256": self.sha256, "executable": self.executable}


@dataclass(frozen=True)
class Manifest:
    """A manifest record whose paths are safe and whose digest was computed again."""

    record: Mapping[str, Any]
    files: tuple[RosterFile, ...]
    digest: str
    project: str
    run_id: str
    box: str
    generation: int
    snapshot: bool

    @property
    def total_bytes(self) -> int:
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True)
class Mismatch:
    """A promise that is not kept: ``what`` completes the sentence "<path> …"."""

    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.path} {self.what}"


def is_sha256(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and _SHA256.match(value) is not None


def manifest_digest(record: Mapping[str, Any]) -> str:
    """The digest that covers project, run_id, generation and files, and nothing else."""
    return records.digest({key: record[key] for key in ("project", "run_id", "generation", "files")})


def files_sha256(files: Iterable[RosterFile]) -> str:
    """One hash for the paths, sizes, hashes and executable bits of ``files``."""
    return records.digest([file.as_dict() for file in files])


def parse_manifest(record: object, where: str = "the manifest") -> Manifest:
    """The manifest in ``record``. BadManifest for another schema, an unsafe path or a digest that does not fit."""
    if not isinstance(record, dict) or record.get("schema") != records.schema("manifest"):
        found = record.get("schema") if isinstance(record, dict) else type(record).__name__
        raise BadManifest(f"{where} is not a manifest of a known version: {found!r}")
    try:
        project = check_name("project", record.get("project"))
        run_id = check_name("run", record.get("run_id"))
        box = check_name("box", record.get("box"))
    except UnsafeName as error:
        raise BadManifest(f"{where}: {error}") from error
    generation = _count(record.get("generation"))
    if not generation:
        raise BadManifest(f"{where}: generation {record.get('generation')!r} is not a number from 1 up")
    files = parse_files(record.get("files"), where)
    try:
        computed = manifest_digest(record)
    except (ValueError, TypeError, RecursionError) as error:
        raise BadManifest(f"{where} holds a value that no JSON file can hold") from error
    if record.get("digest") != computed:
        raise BadManifest(f"{where} was changed after it was made: its digest does not fit its files")
    snapshot = record.get("snapshot", False) is not False
    return Manifest(record, files, computed, project, run_id, box, generation, snapshot)


def parse_files(entries: object, where: str = "the roster") -> tuple[RosterFile, ...]:
    """The files of a roster. BadManifest for paths that are unsafe or collide, absurd sizes, bad entries."""
    if not isinstance(entries, list):
        raise BadManifest(f"{where}: files is not a list")
    if len(entries) > MAX_FILES:
        raise BadManifest(f"{where} lists {len(entries)} files, more than {MAX_FILES}: pack them into archives")
    files = tuple(_parse_file(entry, where) for entry in entries)
    total = sum(file.bytes for file in files)
    if total > MAX_BYTES:
        raise BadManifest(f"{where} claims {total} bytes in all, more than any filesystem holds")
    _refuse_collisions(files, where)
    return files


def check_path(path: object) -> str:
    """``path`` if it is safe and not one that the transfer itself uses; else UnsafeName."""
    checked = check_relative_path(path)
    if checked.partition("/")[0] in RESERVED or f"/{RESERVED_PREFIX}" in f"/{fold(checked)}":
        raise UnsafeName(f"the path {checked!a} has a reserved name")
    return checked


def fold(name: str) -> str:
    """One text for all spellings that a filesystem without case, or without Unicode normalisation, takes for one."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def _parse_file(entry: object, where: str) -> RosterFile:
    if not isinstance(entry, dict):
        raise BadManifest(f"{where}: a file entry is not a mapping")
    try:
        path = check_path(entry.get("path"))
    except UnsafeName as error:
        raise BadManifest(f"{where}: {error}") from error
    size, sha256 = _count(entry.get("bytes")), entry.get("sha256")
    if size is None:
        raise BadManifest(f"{where}: {path!r} has no usable size: {_shown(entry.get('bytes'))}")
    if size > MAX_BYTES:
        raise BadManifest(f"{where}: {path!r} claims {_shown(size)} bytes, more than any filesystem holds")
    if not is_sha256(sha256):
        raise BadManifest(f"{where}: {path!r} has no usable sha256: {_shown(sha256)}")
    role, loader = entry.get("role", "other"), entry.get("loader", "none")
    if not isinstance(role, str) or not isinstance(loader, str):
        raise BadManifest(f"{where}: role and loader of {path!r} must be text")
    return RosterFile(path, size, sha256, role, loader, entry.get("executable") is True)


def _shown(value: object) -> str:
    """A stranger's value, bounded."""
    try:
        return ascii(value)[:80]
    except ValueError:  # more digits than Python turns into text
        return "a number without end"


def _refuse_collisions(files: Sequence[RosterFile], where: str) -> None:
    """Two entries for one path, or a path that is a folder of another, have no single meaning."""
    paths = set()
    for file in files:
        if file.path in paths:
            raise BadManifest(f"{where}: {file.path!r} is listed twice")
        paths.add(file.path)
    both = sorted(paths & folders_of(files))
    if both:
        raise BadManifest(f"{where}: {both[0]!r} is both a file and a folder")


def folders_of(files: Iterable[RosterFile]) -> set[str]:
    """Every folder, at every depth, that the paths of ``files`` lead through."""
    folders: set[str] = set()
    for file in files:
        folder = file.path.rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return folders


def folded_twins(files: Sequence[RosterFile]) -> list[tuple[str, str]]:
    """Pairs of paths in one folder that are one path where names are folded; our own names count too."""
    spelled: dict[tuple[str, str], str] = {("", fold(name)): name for name in RESERVED}
    twins = []
    for path in sorted(folders_of(files) | {file.path for file in files}):
        folder, _slash, name = path.rpartition("/")
        first = spelled.setdefault((folder, fold(name)), path)
        if first != path:
            twins.append((first, path))
    return twins


def _count(value: object) -> int | None:
    """``value`` if it is a whole number from 0 up."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def read_manifest(root: str, name: str = MANIFEST_NAME) -> Manifest:
    """The manifest saved in ``root``. BadManifest when absent, half-written or changed; the text names the file."""
    path = os.path.join(root, name)
    try:
        return parse_manifest(records.read_record(path, "manifest"), path)
    except records.RecordError as error:
        raise BadManifest(str(error)) from error


def manifests_at_home(results_dir: str, project: str, run_id: str) -> Iterator[tuple[str, Manifest]]:
    """(folder, manifest) of what came home of every box and generation of a run, and of what was kept there; last what
    took the place of nothing (``snapshots.why_beside``), which may be less. What cannot be used is passed over."""
    run_root = glob.escape(os.path.join(results_dir, project, run_id))
    for folders in ("g*", "beside-g*"):
        for root in sorted(glob.glob(os.path.join(run_root, "*", folders))):
            for name in (MANIFEST_NAME, KEPT):
                with contextlib.suppress(BadManifest):
                    yield root, read_manifest(root, name)


def not_regular(mode: int) -> str:
    """What a thing of this ``st_mode`` is, completing "<path> …"; empty for a regular file."""
    return "" if stat.S_ISREG(mode) else f"is {_KINDS.get(stat.S_IFMT(mode), 'a device')}"


def extra_files(root: str, files: Iterable[RosterFile]) -> list[str]:
    """Paths under ``root`` that no promise covers, sorted; symlinks and devices count, reserved names do not."""
    promised = {file.path for file in files}
    found = []
    for folder, folders, names in os.walk(root):
        relative = os.path.relpath(folder, root)
        prefix = "" if relative == "." else relative + "/"
        if not prefix:
            folders[:] = [name for name in folders if name not in RESERVED]
            names = [name for name in names if name not in RESERVED]
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        found += [prefix + name for name in names + links if prefix + name not in promised]
    return sorted(found)
