# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A sweep: the cells of one run, shared out among boxes as a run of their own each, so that no two write to one path.

Before any box of a sweep may be destroyed, all of it is reconciled: each cell of the roster is home exactly once, by a
receipt that is in force, with no empty file, none that did not load, and no cell that nobody asked for.
"""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Sequence

from . import copies, roster
from .box import records
from .box.names import UnsafeName, check_name
from .box.structure import SHARDED_LOADERS
from .ledger import Ledger
from .state_store import StateStore

SWEEP = "sweep"
MISSING, ZERO_BYTE, DUPLICATE, UNEXPECTED, UNLOADABLE = "missing", "zero-byte", "duplicate", "unexpected", "unloadable"
_DONE = "done.json"


@dataclass(frozen=True)
class Problem:
    """Why a sweep is not whole: ``kind`` is one of the five above, ``text`` a sentence with the cell in it."""

    kind: str
    cell: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass(frozen=True)
class Home:
    """What one receipt of a share has brought home.

    :param complete: the receipt is in force, and says that the whole share is done.
    :param problems: why the receipt or its copy cannot be believed.
    :param files: as the manifest lists them; ``broken`` are those that lie otherwise at home now.
    :param unloaded: paths that did not load, or whose loading nobody tried.
    """

    run_id: str
    where: str
    complete: bool = False
    problems: tuple[str, ...] = ()
    files: tuple[roster.RosterFile, ...] = ()
    broken: tuple[str, ...] = ()
    unloaded: tuple[str, ...] = ()


# --- the judgement, pure --------------------------------------------------------------------------------------------


def reconcile(sweep: Mapping[str, Any], homes: Iterable[Home]) -> list[Problem]:
    """Everything that keeps the sweep from being whole; empty when each cell is home once and sound."""
    shares, cells = sweep["shares"], sweep["cells"]
    found: list[Problem] = []
    done: dict[str, list[str]] = {}
    for home in homes:
        share = shares.get(home.run_id) or {}
        given_up = bool(share.get("given_up"))
        own = set(share.get("cells") or [])
        trusted = not home.problems and (home.complete or given_up)
        if not given_up:
            # What a box that was given up left behind of other cells is nobody's any more.
            found += [_unreadable(home, why, own) for why in home.problems]
            found += [_unexpected(home, cell) for cell in sorted(_cells_of(home.files) - own)]
        for cell in own:
            if trusted:
                finished = [file.path for file in home.files if _is_done(file.path, cell)]
                done.setdefault(cell, []).extend(f"{home.where}/{path}" for path in finished)
                found += _flaws(home, cell)
    for cell in cells:
        found += _count(cell, done.get(cell, []), shares)
    return found


def _count(cell: str, places: Sequence[str], shares: Mapping[str, Any]) -> list[Problem]:
    if not places:
        whose = [name for name, share in sorted(shares.items()) if cell in (share.get("cells") or [])]
        where = f"harvest run {', '.join(whose)} when it is done" if whose else "no share has it: move it to a box"
        return [Problem(MISSING, cell, f"cell {cell} is not home; {where}")]
    if len(places) > 1:
        return [Problem(DUPLICATE, cell, f"cell {cell} is home more than once: {', '.join(sorted(places))}")]
    return []


def _flaws(home: Home, cell: str) -> list[Problem]:
    files = [file for file in home.files if file.path.split("/")[0] == cell]
    empty = [file.path for file in files if file.bytes == 0 and (file.loader != "none" or file.role == "checkpoint")]
    found = [Problem(ZERO_BYTE, cell, f"{path} in {home.where} has no byte") for path in empty]
    mine = cell + "/"
    found += [Problem(UNLOADABLE, cell, f"{path} in {home.where}") for path in home.broken if path.startswith(mine)]
    return found + [
        Problem(UNLOADABLE, cell, f"{path} in {home.where} did not load, or nobody tried")
        for path in home.unloaded
        if path.startswith(mine) and path not in empty
    ]


def _unreadable(home: Home, why: str, own: Iterable[str]) -> Problem:
    return Problem(UNLOADABLE, ", ".join(sorted(own)), f"run {home.run_id}: {why}")


def _unexpected(home: Home, cell: str) -> Problem:
    return Problem(UNEXPECTED, cell, f"cell {cell} is in {home.where}, and run {home.run_id} was not given it")


def _cells_of(files: Iterable[roster.RosterFile]) -> set[str]:
    return {file.path.split("/")[0] for file in files}


def _is_done(path: str, cell: str) -> bool:
    parts = path.split("/")
    return len(parts) == 3 and parts[0] == cell and parts[2] == _DONE


# --- the record -----------------------------------------------------------------------------------------------------


def path_of(store: StateStore, project: str, sweep_id: str) -> str:
    return store.path("sweeps", check_name("project", project), check_name("run", sweep_id) + ".json")


def read(store: StateStore, project: str, sweep_id: str) -> dict[str, Any] | None:
    """The sweep's record; None when there is none. RecordError for one that cannot be trusted."""
    record = records.read_record_or_none(path_of(store, project, sweep_id), SWEEP)
    if record is not None:
        _check(record, path_of(store, project, sweep_id))
    return record


def write(store: StateStore, project: str, sweep: Mapping[str, Any]) -> dict[str, Any]:
    path = path_of(store, project, str(sweep["sweep_id"]))
    _check(sweep, path)
    return records.write_record(path, SWEEP, dict(sweep))


def _check(record: Mapping[str, Any], path: str) -> None:
    shares, cells = record.get("shares"), record.get("cells")
    sound = isinstance(shares, dict) and isinstance(cells, list) and all(isinstance(cell, str) for cell in cells)
    for share in shares.values() if isinstance(shares, dict) else ():
        sound = sound and isinstance(share, dict) and isinstance(share.get("cells"), list)
    if not sound:
        raise records.RecordError(f"the sweep record {path} has no readable roster of cells and shares")


# --- what is home ---------------------------------------------------------------------------------------------------


def homes(store: StateStore, project: str, sweep: Mapping[str, Any], ledger: Ledger) -> list[Home]:
    """What every share has brought home, by its receipts and the copies that they name."""
    found = []
    for run_id in sorted(sweep["shares"]):
        try:
            paths = store.receipts(project, run_id)
        except UnsafeName as error:
            found.append(Home(run_id, "", problems=(str(error),)))
            continue
        found += [_home(path, run_id, ledger) for path in paths]
    return found


def _home(path: str, run_id: str, ledger: Ledger) -> Home:
    try:
        record = records.read_record(path, "receipt")
    except records.RecordError as error:
        return Home(run_id, path, problems=(str(error),))
    why = ledger.receipt_problem(record)
    if why:
        return Home(run_id, path, problems=(f"the receipt {path} {why}",))
    listed = record.get("copies")
    uris = [str(copy.get("uri")) for copy in listed if isinstance(copy, dict)] if isinstance(listed, list) else []
    folder = next((each for each in map(copies.folder_of, uris) if each and os.path.isdir(each)), "")
    if not folder:
        return Home(run_id, path, problems=(f"no copy that the receipt {path} names lies on this machine",))
    try:
        manifest = roster.read_manifest(folder)
    except roster.BadManifest as error:
        return Home(run_id, folder, problems=(str(error),))
    if manifest.digest != record.get("manifest_digest"):
        return Home(run_id, folder, problems=(f"the copy in {folder} is not what the receipt {path} speaks of",))
    complete = record.get("complete") is True
    return Home(
        run_id, folder, complete, (), manifest.files, _broken(folder, manifest.files), _unloaded(record, manifest)
    )


def _broken(folder: str, files: Iterable[roster.RosterFile]) -> tuple[str, ...]:
    """Files that are not there, no plain files, or of another size. Their bytes are the gate's own business."""
    found = []
    for file in files:
        try:
            about = os.lstat(os.path.join(folder, file.path))
        except OSError as error:
            found.append(f"{file.path} cannot be found: {error.strerror}")
            continue
        kind = roster.not_regular(about.st_mode)
        if kind or about.st_size != file.bytes:
            found.append(f"{file.path} {kind or f'has {about.st_size} bytes, not {file.bytes}'}")
    return tuple(found)


def _unloaded(record: Mapping[str, Any], manifest: roster.Manifest) -> tuple[str, ...]:
    """Files that a check speaks against, and those that have a loader of their own and no check. The pieces of a
    sharded checkpoint are loaded as one, under the name of the whole."""
    listed = record.get("checks")
    checks = {
        str(check.get("path")): check.get("ok") is True
        for check in (listed if isinstance(listed, list) else [])
        if isinstance(check, dict)
    }
    alone = [file.path for file in manifest.files if file.loader != "none" and file.loader not in SHARDED_LOADERS]
    failed = [path for path, passed in checks.items() if not passed]
    return tuple(sorted({*failed, *(path for path in alone if path not in checks)}))


# --- in the gate ----------------------------------------------------------------------------------------------------


def gaps(store: StateStore, project: str, runs: Iterable[str], ledger: Ledger) -> tuple[str, ...]:
    """Why no box that holds a share of a sweep may go yet. A record that cannot be read keeps the gate shut as well."""
    wanted = set(runs)
    found: list[str] = []
    for path in sorted(glob.glob(os.path.join(glob.escape(store.path("sweeps", project)), "*.json"))):
        try:
            sweep = records.read_record(path, SWEEP)
            _check(sweep, path)
        except records.RecordError as error:
            found.append(f"{error}; nobody knows whether a run of this box is a share of it")
            continue
        if wanted & set(sweep["shares"]):
            problems = reconcile(sweep, homes(store, project, sweep, ledger))
            found += [f"sweep {sweep.get('sweep_id')}: {problem}" for problem in problems]
    return tuple(found)
