# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Reading a box's seal: what it promises, which runs it knows, how far they got, and what lives on it right now.

The box is a stranger's, so its answer is a claim. The gate believes what it can re-read at home: the claim only says
which digests must be found there. A reading changes nothing on the box.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import Any, Iterator, Mapping

from . import power_record
from .box import artifacts, attempt, index, process, reach, records, run_record
from .box.artifacts import FileChanged, hash_stable
from .box.layout import AttemptPaths, Layout
from .box.names import UnsafeName, check_name, check_relative_path
from .box.refusal import Refused
from .journal import Journal
from .last_contact import Reached, cell_of_work, parse_cell, work_shown
from .ledger import SEAL_READING
from .state_store import BoxIdentity, StateStore

_ANSWERS = ("seal", "index", "live_cells", "unlisted_runs", "checkpoints", "durable", "boot_id", "problems")
_MOST_PROBLEMS = 20


def read_box(tenant_root: str) -> dict[str, Any]:
    """On the box: ``{seal, index, live_cells, unlisted_runs, checkpoints, durable, boot_id, problems}``.

    A damaged record is a problem, not None. ``checkpoints`` is as ``last_contact`` has it.
    """
    layout, problems = Layout(tenant_root), _unlistable(tenant_root)
    found: dict[str, Any] = {"seal": None, "index": None}
    for name, read in (("seal", _read_seal), ("index", index.read)):
        try:
            found[name] = read(layout)
        except records.RecordError as error:
            problems.append(str(error))
    listed = set(index.run_ids(found["index"]))
    present = _folders(layout.path("runs"))
    runs = _run_records(layout, [run_id for run_id in present if run_id in listed], problems)
    return dict(
        found,
        live_cells=_live_cells(layout, present, problems),
        unlisted_runs=[run_id for run_id in present if run_id not in listed],
        checkpoints={run_id: _reached(layout, run) for run_id, run in runs.items()},
        durable=_durable_devices(runs),
        boot_id=process.current_boot().boot_id,
        problems=problems + _broken_promises(layout, found["seal"]),
    )


def _read_seal(layout: Layout) -> dict[str, Any] | None:
    return records.read_record_or_none(layout.seal, "seal")


def _folders(path: str) -> list[str]:
    """All of them: what is not looked at would seem not to be there. One that cannot be listed is told by itself."""
    try:
        return sorted(name for name in os.listdir(path) if os.path.isdir(os.path.join(path, name)))
    except OSError:
        return []


def _unlistable(tenant_root: str) -> list[str]:
    """The folders of the runs that cannot be listed, so that nobody knows what is in them."""
    found: list[str] = []

    def tell(error: OSError) -> None:
        # A trainer prunes while we look, and a box without runs has no folder of them.
        if not isinstance(error, FileNotFoundError):
            found.append(f"{error.filename} cannot be listed: {error.strerror}")

    for _parent in os.walk(Layout(tenant_root).path("runs"), onerror=tell):
        pass
    return found[:_MOST_PROBLEMS]


def _run_records(layout: Layout, run_ids: list[str], problems: list[str]) -> dict[str, dict[str, Any]]:
    found = {}
    for run_id in filter(_is_name, run_ids):
        try:
            found[run_id] = run_record.read_run(layout, run_id)
        except (records.RecordError, ValueError) as error:
            problems.append(str(error))
    return found


def _attempts(layout: Layout, run_id: str) -> Iterator[tuple[str, AttemptPaths]]:
    """(cell, attempt) of every attempt on the disk, whatever the index says of it."""
    for cell in filter(_is_name, _folders(layout.run_dir(run_id))):
        for number in layout.attempt_numbers(run_id, cell):
            yield cell, layout.attempt(run_id, cell, number)


def _live_cells(layout: Layout, run_ids: list[str], problems: list[str]) -> list[str]:
    """``run/cell/aN`` of every attempt whose shim or trainer lives, or of which nobody can say that they do not."""
    return [
        f"{run_id}/{cell}/a{paths.number}"
        for run_id in filter(_is_name, run_ids)
        for cell, paths in _attempts(layout, run_id)
        if _may_live(paths, problems)
    ]


def _may_live(paths: AttemptPaths, problems: list[str]) -> bool:
    try:
        return attempt.is_alive(paths)
    except Refused as refused:
        problems.append(refused.what)
        return True


def _is_name(text: str) -> bool:
    try:
        check_name("name", text)
    except UnsafeName:
        return False
    return True


# --- how far the runs got -----------------------------------------------------------------------------------------


def _reached(layout: Layout, run: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By cell: what the names of its checkpoints say, and whether the cell is done. No file is opened.

    What an earlier work of a cell left is a cell of its own (see ``last_contact``): it says nothing of the present one.
    """
    reached: dict[str, Reached] = {}
    for cell, paths in _attempts(layout, run["run_id"]):
        units = artifacts.checkpoint_units(paths.output, run["artifacts"]) if os.path.isdir(paths.output) else []
        here = parse_cell({**reach.of_units(units), "done": os.path.lexists(paths.done)})
        present = attempt.present_work(dict(run), cell)
        key = _cell_of(cell, paths, present)
        reached[key] = reached.get(key, Reached()).furthest(here)
        if present:
            # Also where nothing of it was begun: what was known of the cell before is of another work then.
            reached[cell] = replace(reached.get(cell, Reached()), work=work_shown(present))
    return {cell: each.as_dict() for cell, each in reached.items()}


def _cell_of(cell: str, paths: AttemptPaths, present: str) -> str:
    """An attempt whose work no record tells may be of the present one."""
    work = attempt.work_of(paths).get("config_sha256")
    return cell_of_work(cell, str(work)) if work and work != present else cell


def _durable_devices(runs: Mapping[str, Mapping[str, Any]]) -> list[int]:
    """The devices of the durable mounts as this box sees them: what it wrote there may be in its page cache only."""
    devices = set()
    for run in runs.values():
        with contextlib.suppress(OSError):
            if run["durable"]["kind"] == "mount":
                devices.add(os.stat(run["durable"]["path"]).st_dev)
    return sorted(devices)


# --- is the seal still true ---------------------------------------------------------------------------------------


def _broken_promises(layout: Layout, seal: Mapping[str, Any] | None) -> list[str]:
    """Artifacts that changed, vanished or appeared since the box was sealed.

    A file's change time cannot be set back by a program, so only files that changed after the seal are hashed.
    """
    listed = (seal or {}).get("runs")
    if not isinstance(listed, list):
        return []
    try:
        sealed_ns = os.lstat(layout.seal).st_ctime_ns
    except OSError:
        return [f"the seal {layout.seal} vanished while it was read"]
    broken = []
    for run in listed:
        run_id = run.get("run_id") if isinstance(run, dict) else None
        if isinstance(run_id, str) and _is_name(run_id):
            broken += list(_changed_since(layout, run_id, run.get("manifest_digest"), sealed_ns))
    return [f"{what} since the box was sealed" for what in broken[:_MOST_PROBLEMS]]


def _changed_since(layout: Layout, run_id: str, digest: object, sealed_ns: int) -> Iterator[str]:
    promised = _promised(layout, run_id, digest)
    if promised is None:
        yield f"the manifest {layout.run_manifest(run_id)} changed"
        return
    folder = layout.run_dir(run_id)
    for path, line in sorted(promised.items()):
        change = _change(os.path.join(folder, path), line, sealed_ns)
        if change:
            yield f"{run_id}/{path} {change}"
    for _cell, paths in _attempts(layout, run_id):
        for path in _files(paths.output):
            relative = os.path.relpath(path, folder)
            if relative not in promised and _is_newer(path, sealed_ns):
                yield f"{run_id}/{relative} was written"


def _promised(layout: Layout, run_id: str, digest: object) -> dict[str, Mapping[str, Any]] | None:
    """The sealed roster by path; None when the manifest beside the files is not the sealed one."""
    try:
        manifest = records.read_record(layout.run_manifest(run_id), "manifest")
        covered = {key: manifest[key] for key in ("project", "run_id", "generation", "files")}
        if manifest.get("digest") != digest or records.digest(covered) != digest:
            return None
        return {check_relative_path(line["path"]): line for line in manifest["files"]}
    except (records.RecordError, UnsafeName, KeyError, TypeError, ValueError):
        return None


def _change(path: str, line: Mapping[str, Any], sealed_ns: int) -> str:
    try:
        if not os.path.islink(path) and os.path.getsize(path) == line["bytes"] and not _is_newer(path, sealed_ns):
            return ""
        same = hash_stable(path) == (line["bytes"], line["sha256"])
    except FileNotFoundError:
        return "vanished"
    except (OSError, FileChanged, UnsafeName):
        return "was replaced or is being written"
    return "" if same else "was changed"


def _files(folder: str) -> Iterator[str]:
    for parent, _folders_here, names in os.walk(folder):
        for name in names:
            yield os.path.join(parent, name)


def _is_newer(path: str, moment_ns: int) -> bool:
    return os.lstat(path).st_ctime_ns > moment_ns


# --- what the controller keeps ------------------------------------------------------------------------------------


def as_record(identity: BoxIdentity, read_at: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    """The seal reading that the store keeps. ``read_at`` is when the question was sent, by the controller's clock."""
    record = dict(
        {name: answer.get(name) for name in _ANSWERS},
        schema=records.schema("seal-reading"),
        read_at=read_at,
        reachable=True,
        **identity.as_dict(),
    )
    try:
        records.digest(record)
    except (ValueError, TypeError, RecursionError):
        unread = dict.fromkeys(_ANSWERS)
        return {**record, **unread, "problems": ["its answer holds a value that no record can hold"]}
    return record


def save(store: StateStore, identity: BoxIdentity, reading: Mapping[str, Any]) -> dict[str, Any]:
    """Keep a reading, its hash in the journal first, so that a later edit or an older reading put back shows."""
    whole = dict(reading, schema=records.schema("seal-reading"))
    Journal(store).append("effect", SEAL_READING, sha256=records.digest(whole), **identity.as_dict())
    if not whole.get("at_rest"):
        power_record.note_answered(store, identity, str(whole.get("read_at")))
    path = store.seal_path(identity.project, identity.box, identity.generation)
    return records.write_record(path, "seal-reading", whole)
