# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Artifacts of a cell: found by glob, checked by structure, hashed. Nothing is executed."""

from __future__ import annotations

import os
import stat
from typing import Any, Callable, Iterable, Iterator

from . import checkpoint_manifest, globs, sharded
from .hashing import hash_open, identity
from .names import UnsafeName, check_relative_path, is_temporary
from .refusal import ARTIFACT_INVALID, ARTIFACT_MISSING, Refused
from .step_name import step_in, unit_of
from .structure import SHARDED_LOADERS, check_structure

# What tenant_checkpoint and its callbacks for other loops write; it counts whether or not the run spec names it. The
# folder of a Trainer has its last name from the beginning: only the manifest in it (``sealed``) says that it is whole.
# A run spec that names such folders vouches for them, but not once our callback seals the ones beside them.
_USUAL_CHECKPOINTS: list[dict[str, Any]] = [
    {"glob": "checkpoints/step-*.pt", "role": "checkpoint", "loader": "torch"},
    {"glob": "checkpoints/step-*.dcp/**", "role": "checkpoint", "loader": "dcp"},
    {"glob": "checkpoints/step-*.ckpt", "role": "checkpoint", "loader": "torch"},
    {"glob": "checkpoints/step-*.ckpt/**", "role": "checkpoint", "loader": "dcp"},
    {"glob": "checkpoints/checkpoint-*/**", "role": "checkpoint", "loader": "hf", "sealed": True},
]


_SEALED_NAMES = [globs.regex(entry["glob"]) for entry in _USUAL_CHECKPOINTS if entry.get("sealed")]


class FileChanged(Exception):
    """The file changed while it was read."""


# --- hashing --------------------------------------------------------------------------------------------------


def hash_stable(path: str, moved: Callable[[], object] | None = None) -> tuple[int, str]:
    """Size and SHA-256 of a plain file that did not change meanwhile. :param moved: as :func:`hash_open` calls it.

    :raises FileChanged: it grew, shrank, was rewritten or replaced while it was read.
    :raises UnsafeName: it is a symlink or not a plain file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if os.path.islink(path):
            raise UnsafeName(f"{path} is a symlink") from error
        raise
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise UnsafeName(f"{path} is not a plain file")
        size, sha256 = hash_open(descriptor, before.st_size, moved)
    finally:
        os.close(descriptor)
    if size != before.st_size or not _is_still(path, before):
        raise FileChanged(f"{path} changed while it was read")
    return size, sha256


def _is_still(path: str, opened: os.stat_result) -> bool:
    """Whether ``path`` still names the file that was opened, and nobody has written to that since."""
    try:
        now = os.lstat(path)
    except OSError:
        return False
    return identity(now) == identity(opened)


def files_below(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """Every entry below ``folder`` that is not a folder, sorted, with its own (not followed) stat.

    A folder that cannot be listed is passed over.
    """
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        folders = []
        for entry in _listed(os.path.join(folder, prefix)):
            if entry.is_dir(follow_symlinks=False):
                folders.append(f"{prefix}{entry.name}/")
                continue
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # a trainer prunes while we look
            yield prefix + entry.name, found
        waiting += reversed(folders)


def _listed(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _candidates(folder: str, patterns: list[str]) -> Iterator[tuple[str, os.stat_result]]:
    """Entries below the folders that the patterns begin with, each once: an output may hold many that none names."""
    starts = sorted({_literal_start(pattern) for pattern in patterns})
    for start in starts:
        if any(start != other and f"{start}/".startswith(f"{other}/" if other else "") for other in starts):
            continue
        if _is_linked(folder, start):
            raise UnsafeName(f"{start} is a symlink, but a glob leads through it")
        for path, info in files_below(os.path.join(folder, start) if start else folder):
            yield (f"{start}/{path}" if start else path), info


def _literal_start(pattern: str) -> str:
    """The leading folders of a glob that hold no wildcard."""
    parts = pattern.split("/")[:-1]
    count = next((number for number, part in enumerate(parts) if set(part) & set("*?[")), len(parts))
    return "/".join(parts[:count])


def _is_linked(folder: str, start: str) -> bool:
    parts = start.split("/") if start else []
    return any(os.path.islink(os.path.join(folder, *parts[: number + 1])) for number in range(len(parts)))


def matches(folder: str, declared: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Files below ``folder`` that a glob names, each once (first glob wins), and what was left out and why.

    :raises UnsafeName: a glob without ``**`` names a symlink or something that is not a file, or a name is unsafe.
    """
    patterns = [(entry, globs.regex(entry["glob"])) for entry in declared]
    found, skipped = [], []
    for path, info in _candidates(folder, [entry["glob"] for entry in declared]):
        entry = next((entry for entry, pattern in patterns if pattern.match(path)), None)
        if entry is None or is_temporary(path):
            continue
        if not stat.S_ISREG(info.st_mode):
            what = "a symlink" if stat.S_ISLNK(info.st_mode) else "not a plain file"
            if "**" not in entry["glob"]:
                raise UnsafeName(f"{path} is {what}, but {entry['glob']!r} names it as an artifact")
            skipped.append({"path": path, "why": what})
            continue
        check_relative_path(path)
        found.append({"path": path, "bytes": info.st_size, "mtime": info.st_mtime, **entry})
    return found, skipped


def collect(
    folder: str, declared: list[dict[str, Any]], share: bool = False, lax: bool = False
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The artifacts below ``folder``: ``[{path, bytes, sha256, role, loader}]`` and what was left out.

    A damaged checkpoint is left out while a sound one matches the same glob; any other damage refuses.

    :param share: other boxes hold the rest of the sharded checkpoints, so that none is complete here.
    :param lax: another box writes what is written once, so that a glob without a file is no fault here.
    :raises Refused: ARTIFACT_MISSING or ARTIFACT_INVALID, naming glob or file.
    """
    try:
        found, skipped = matches(folder, declared)
    except UnsafeName as error:
        raise Refused(ARTIFACT_INVALID, str(error)) from error
    examined = [examine(folder, entry) for entry in found]
    incomplete = _sharded_problems(folder, examined, share)
    sound = []
    for entry, (problem, artifact) in zip(found, examined):
        problem = problem or incomplete.get(_sharded_folder(entry), "")
        if not problem:
            sound.append(artifact)
        elif entry["role"] == "checkpoint":
            skipped.append({"path": entry["path"], "why": problem})
        else:
            raise Refused(ARTIFACT_INVALID, f"artifact {entry['path']} is invalid: {problem}")
    for wanted in declared:
        if not any(artifact["glob"] == wanted["glob"] for artifact in sound):
            damaged = [entry["path"] for entry in found if entry["glob"] == wanted["glob"]]
            if damaged:
                why = next((line["why"] for line in skipped if line["path"] in damaged), "")
                what = f"every file that {wanted['glob']!r} names is damaged: {damaged[:3]} ({why})"
                raise Refused(ARTIFACT_INVALID, what)
            if not lax and not _covered(wanted, sound):
                raise Refused(ARTIFACT_MISSING, f"no artifact matches {wanted['glob']!r}")
    return [{key: value for key, value in artifact.items() if key != "glob"} for artifact in sound], skipped


def _sharded_problems(folder: str, examined: list[tuple[str, dict[str, Any]]], share: bool) -> dict[str, str]:
    """By folder of a sharded format, what makes it no checkpoint: a file that is damaged or missing spoils all."""
    members: dict[str, list[tuple[str, str]]] = {}
    for problem, line in examined:
        unit = _sharded_folder(line)
        if unit:
            members.setdefault(unit, []).append((os.path.relpath(line["path"], unit), problem))
    empty = [] if share else sharded.without_weights((line["path"], line["loader"]) for _problem, line in examined)
    problems = {}
    for unit, files in members.items():
        damaged = next((f"{name}: {problem}" for name, problem in files if problem), "")
        if not damaged and not share:
            damaged = sharded.folder_problem(os.path.join(folder, unit), [name for name, _problem in files])
        if not damaged and any(f"{weightless}/".startswith(f"{unit}/") for weightless in empty):
            damaged = sharded.NO_WEIGHTS
        problems[unit] = damaged
    return problems


def _sharded_folder(entry: dict[str, Any]) -> str:
    """The folder that a file of a sharded format belongs to; empty for a file that stands alone."""
    if entry["loader"] not in SHARDED_LOADERS:
        return ""
    unit = unit_of(entry["path"])
    return (os.path.dirname(unit) or ".") if unit == entry["path"] else unit


def _covered(wanted: dict[str, Any], sound: list[dict[str, Any]]) -> bool:
    """Whether files taken by an earlier glob satisfy this one too."""
    pattern = globs.regex(wanted["glob"])
    return any(pattern.match(artifact["path"]) for artifact in sound)


def examine(folder: str, entry: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What is wrong with one matched file (empty when nothing is), and its artifact line."""
    path = os.path.join(folder, entry["path"])
    line: dict[str, Any] = {key: entry[key] for key in ("path", "role", "loader", "glob") if key in entry}
    try:
        if entry["role"] not in ("log", "other") and os.path.getsize(path) == 0:
            return "it is empty", line
        size, sha256 = hash_stable(path)
        problem = check_structure(path, entry["loader"])
    except FileChanged:
        return "it changed while it was read", line
    except FileNotFoundError:
        return "it went away while it was read", line
    return problem, dict(line, bytes=size, sha256=sha256)


# --- checkpoints ----------------------------------------------------------------------------------------------


def checkpoint_units(output: str, declared: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Checkpoints below ``output``, newest first: ``{key, step, mtime, files}``. A sharded one is a folder of files.

    Looked for are what tenant_checkpoint writes and every glob with role checkpoint. Nothing is read yet.
    """
    checkpoints = [entry for entry in declared if entry["role"] == "checkpoint"]
    try:
        found, _skipped = matches(output, [*checkpoints, *_USUAL_CHECKPOINTS])
    except UnsafeName:
        found, _skipped = matches(output, _USUAL_CHECKPOINTS)
    sealed = {
        os.path.dirname(entry["path"]) for entry in found if os.path.basename(entry["path"]) == checkpoint_manifest.NAME
    }
    units: dict[str, dict[str, Any]] = {}
    for entry in found:
        if _asks_for_seal(entry, sealed) and unit_of(entry["path"]) not in sealed:
            continue
        folder, step = _unit_folder(entry), step_in(unit_of(entry["path"]))
        unit = units.setdefault(folder, {"key": unit_of(entry["path"]), "step": step, "mtime": 0.0, "files": []})
        # A folder that names no step is told by the file that speaks for it, as a copy of it is at home.
        if step is None and sharded.is_head(entry["path"], entry["loader"]):
            unit["key"] = entry["path"]
        unit["files"].append(entry)
        unit["mtime"] = max(unit["mtime"], entry["mtime"])
    return sorted(units.values(), key=lambda unit: (unit["step"] is not None, unit["step"] or 0, unit["mtime"]))[::-1]


def _unit_folder(entry: dict[str, Any]) -> str:
    """What the files of one checkpoint have in common: the path that names its step, else the folder of its shards."""
    named = unit_of(entry["path"])
    return named if step_in(named) is not None else _sharded_folder(entry) or named


def _asks_for_seal(entry: dict[str, Any], sealed: set[str]) -> bool:
    """Whether the folder of this file counts only with the manifest in it."""
    if entry.get("sealed") or entry["loader"] not in SHARDED_LOADERS or not _is_of_trainer(entry["path"]):
        return bool(entry.get("sealed"))
    return any(_is_of_trainer(f"{folder}/{checkpoint_manifest.NAME}") for folder in sealed)


def _is_of_trainer(path: str) -> bool:
    return any(pattern.match(path) for pattern in _SEALED_NAMES)


def newest_sound_checkpoint(output: str, declared: list[dict[str, Any]], share: bool = False) -> dict[str, Any] | None:
    """The newest checkpoint whose files are all sound and there, with hashed ``artifacts``; None when there is none."""
    return next(sound_ones(output, checkpoint_units(output, declared), share), None)


def sound_ones(output: str, units: Iterable[dict[str, Any]], share: bool = False) -> Iterator[dict[str, Any]]:
    """Those of ``units`` whose files are all sound and there, each with its hashed ``artifacts``."""
    for unit in units:
        found = _examined(output, unit, share)
        if found is not None:
            yield found


def is_sound(output: str, unit: dict[str, Any], share: bool = False) -> bool:
    """Whether every file of a checkpoint is there and whole."""
    return _examined(output, unit, share) is not None


def _examined(output: str, unit: dict[str, Any], share: bool) -> dict[str, Any] | None:
    """``unit`` with its hashed ``artifacts``, None when a file of it is not sound."""
    examined = [examine(output, entry) for entry in unit["files"]]
    if any(problem for problem, _line in examined) or any(_sharded_problems(output, examined, share).values()):
        return None
    files = [{key: value for key, value in line.items() if key != "glob"} for _problem, line in examined]
    return dict(unit, artifacts=files)
