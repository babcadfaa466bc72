# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the copy of a receipt holds, attempt by attempt: whose work it is, which files lie there, and whether all that
its done record promises is among them. Out of it, how far each cell is home.

Read from the folder at home whose every byte was hashed just before.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping

from . import copies, last_contact, promised, roster
from .box import reach, sharded
from .box.step_name import step_in, unit_of
from .box.structure import SHARDED_LOADERS
from .last_contact import Reached

# A file of metrics may name a step too, but nothing can be resumed from it.
_WEIGHTS = ("torch", "safetensors", "dcp", "hf", "npz")


@dataclass(frozen=True)
class Attempt:
    """``cell`` is what its progress is told as (see ``last_contact``), empty where nobody said whose work it is.
    ``files`` are (path below ``out``, role, loader); ``finished``: its done record and all results that this promises.
    """

    cell: str
    files: tuple[tuple[str, str, str], ...] = ()
    finished: bool = False


@dataclass(frozen=True)
class Contents:
    """By ``<cell>/a<n>``."""

    attempts: Mapping[str, Attempt] = field(default_factory=dict)

    @property
    def untold(self) -> list[str]:
        """Cells of which it holds something, though nobody can say of which work."""
        return sorted({name.partition("/")[0] for name, attempt in self.attempts.items() if not attempt.cell})


# --- reading it ---------------------------------------------------------------------------------------------------


def read(record: Mapping[str, Any], reread: Iterable[copies.CopyEvidence]) -> Contents:
    """The contents of a receipt's copy in a folder here: nothing where that is of another manifest than the receipt."""
    root = next((folder for folder in (copies.folder_of(copy.uri) for copy in reread) if folder), "")
    try:
        manifest = roster.read_manifest(root) if root else None
    except roster.BadManifest:
        return Contents()
    wanted = (record.get("manifest_digest"), record.get("spec_sha256"))
    # The digest covers the files only, and whose work they are is the spec's matter.
    if manifest is None or (manifest.digest, manifest.record.get("spec_sha256")) != wanted:
        return Contents()
    return of_manifest(root, manifest)


def of_manifest(root: str, manifest: roster.Manifest) -> Contents:
    """:param root: where the files of the manifest lie."""
    files: dict[str, list[tuple[str, str, str]]] = {}
    for file in manifest.files:
        cell, _slash, rest = file.path.partition("/")
        number, _slash, inner = rest.partition("/")
        if inner:
            listed = files.setdefault(f"{cell}/{number}", [])
            if inner.startswith("out/"):
                listed.append((inner[len("out/") :], file.role, file.loader))
    by_path = {file.path: file for file in manifest.files}
    return Contents({name: _attempt(root, manifest, by_path, name, listed) for name, listed in files.items()})


def _attempt(
    root: str, manifest: roster.Manifest, by_path: Mapping[str, roster.RosterFile], name: str, files: Iterable[Any]
) -> Attempt:
    path = f"{name}/{promised.DONE}"
    done = promised.read(os.path.join(root, path)) if path in by_path else None
    lines = promised.lines(done)
    finished = lines is not None and all(
        promised.is_listed(by_path, line) for line in lines if promised.is_result(line)
    )
    return Attempt(_cell_of(manifest.record, name, done or {}), tuple(files), finished)


def _cell_of(record: Mapping[str, Any], name: str, done: Mapping[str, Any]) -> str:
    """What the manifest says of the attempt's work; where it was made by an earlier version, what its done record does:
    a cell that this very spec has finished is of this spec's work."""
    cell, works = name.partition("/")[0], record.get("works")
    if works is None:
        return cell if done.get("spec_sha256") == record.get("spec_sha256") else ""
    said = works.get(name) if isinstance(works, dict) else None
    if not isinstance(said, dict):
        return ""
    work = said.get("config_sha256")
    if not roster.is_sha256(work):
        return ""
    return cell if said.get("present") is True else last_contact.cell_of_work(cell, work)


# --- how far that is ----------------------------------------------------------------------------------------------


def reached(checks: Iterable[Mapping[str, Any]], contents: Contents) -> dict[str, Reached]:
    """By cell: what was loaded, by the names of the checkpoints, with the files that belong to it."""
    loaded: dict[str, set[str]] = {}
    for check in checks:
        name, _out, inner = str(check.get("path")).partition("/out/")
        if _is_checkpoint(inner.rpartition("/")[2], check.get("loader")):
            loaded.setdefault(name, set()).add(inner)
    found: dict[str, Reached] = {}
    for name, attempt in contents.attempts.items():
        here = _of_attempt(attempt, loaded.get(name, set()))
        if attempt.cell and here != Reached():
            found[attempt.cell] = found.get(attempt.cell, Reached()).furthest(here)
    return found


def _is_checkpoint(name: str, loader: object) -> bool:
    """Whether the check of this file proves a checkpoint: of a folder only the one that speaks for all of it."""
    return loader in _WEIGHTS and (loader not in SHARDED_LOADERS or sharded.is_head(name, str(loader)))


def _of_attempt(attempt: Attempt, loaded: set[str]) -> Reached:
    """By its names alone, as the box tells it of its own: the step inside a file may count something else.

    What lies beside a loaded checkpoint of the same step belongs to it; of a folder, once its index or weights are.
    """
    proven = {unit_of(path) for path in loaded}
    steps = {step_in(unit) for unit in proven}
    units: dict[str, dict[str, Any]] = {}
    for path, role, loader in attempt.files:
        unit = unit_of(path)
        step = step_in(unit)
        is_result = role == "checkpoint" or path in loaded
        counts = is_result if step is None else step in steps and (unit in proven or loader not in SHARDED_LOADERS)
        if counts:
            known = units.setdefault(unit, {"key": unit, "step": step, "files": []})
            known["files"].append({"path": path, "loader": loader})
    return last_contact.parse_cell({**reach.of_units(units.values()), "done": attempt.finished})
