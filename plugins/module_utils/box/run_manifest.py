# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The manifest of a run: what of its cells comes home, read again. Built on the box that has it."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from . import artifacts, attempt, held_files, index, newest_checkpoints, policy, records, run_record, survey
from .layout import AttemptPaths, Layout
from .manifest import build
from .names import UnsafeName, check_relative_path
from .refusal import ARTIFACT_INVALID, LIVE, USAGE, Refused
from .spread import FILE_COST, spread

# How often a snapshot is begun anew because a file of it was removed meanwhile.
_SNAPSHOTS = 5


def of_run(
    layout: Layout,
    found: survey.Survey,
    run_id: str,
    snapshot: bool = False,
    keep: bool = True,
    chosen: policy.Policy | None = None,
) -> dict[str, Any]:
    """The manifest of a run.

    Final: every done cell in full, and of other cells the newest sound checkpoint with metrics and log.
    Snapshot: the same while cells live, with a frozen copy of the metrics and without logs.
    What people chose to leave on the box is in neither.

    :param keep: False leaves no frozen metrics on the disk (check mode).
    :param chosen: what comes home, for this manifest alone; None for the policy in force.
    :raises Refused: LIVE when a cell lives and no snapshot was asked for; ARTIFACT_INVALID when evidence changed.
    """
    if run_id not in found.runs:
        raise Refused(USAGE, f"run {run_id!r} is not registered on this box", "read the run ids with the verb status")
    run = found.runs[run_id]
    live = {cell.cell for cell in found.live(run_id)}
    if live and not snapshot:
        raise Refused(
            LIVE, f"run {run_id} has live cells: {', '.join(sorted(live))}", "wait, stop it, or take a snapshot"
        )
    chosen = policy.read(layout, run_id) if chosen is None else chosen
    files: list[dict[str, Any]] = []
    works: dict[str, dict[str, Any]] = {}
    for cell in layout.cells_on_disk(run_id):
        files += _files_of_cell(layout, run, chosen, cell, cell in live, snapshot and keep)
        works.update(_works_of_cell(layout, run, cell))
    # Beside the files: the same files of another work are still the same files, and so is their digest.
    more = {"snapshot": snapshot, "state": found.state_of(run_id), "policy": chosen.as_dict(), "works": works}
    identity = {key: (found.index or run)[key] for key in run_record.IDENTITY}
    return dict(build(identity, run_id, run["spec_sha256"], files, **more))


def _files_of_cell(
    layout: Layout, run: dict[str, Any], chosen: policy.Policy, cell: str, live: bool, freeze: bool
) -> list[dict[str, Any]]:
    """Files of every work that was ever this cell's: what a changed spec left behind is evidence too."""
    wanted = attempt.present_work(run, cell)
    by_work: dict[str, list[AttemptPaths]] = {}
    for number in layout.attempt_numbers(run["run_id"], cell):
        paths = layout.attempt(run["run_id"], cell, number)
        by_work.setdefault(attempt.work_of(paths).get("config_sha256", wanted), []).append(paths)
    files: list[dict[str, Any]] = []
    for work, attempts in by_work.items():
        done = next((paths for paths in attempts if attempt.read(paths.done, "done")), None)
        lives = live and work == wanted
        files += _of_done(done, chosen) if done else _of_unfinished(run, attempts, chosen, lives, freeze)
    return files


def _works_of_cell(layout: Layout, run: dict[str, Any], cell: str) -> dict[str, dict[str, Any]]:
    """``{<cell>/a<n>: {config_sha256, present}}``: whose work each attempt is, empty where no record of it is whole."""
    found = {}
    for number in layout.attempt_numbers(run["run_id"], cell):
        paths = layout.attempt(run["run_id"], cell, number)
        work = attempt.work_of(paths).get("config_sha256", "")
        found[paths.relative] = {"config_sha256": work, "present": work == attempt.present_work(run, cell)}
    return found


def _comes_home(chosen: policy.Policy, inner: str, role: str) -> bool:
    """``inner`` is relative to the attempt; a policy speaks of what lies below its ``out``."""
    return not chosen.why_left(inner[len("out/") :] if inner.startswith("out/") else inner, role)


def _of_done(paths: AttemptPaths, chosen: policy.Policy) -> list[dict[str, Any]]:
    """What done.json promised, read again, and done.json itself."""
    promised = [
        line
        for line in attempt.read(paths.done, "done")["artifacts"]
        if _comes_home(chosen, _inner(paths, line), line["role"]) and not _stayed_behind(paths, line)
    ]
    costs = [line["bytes"] + FILE_COST for line in promised]
    files = spread(promised, costs, lambda share: [_reread(paths, line) for line in share])
    return [*files, _line(paths, "done.json", "other", "json")]


def _stayed_behind(paths: AttemptPaths, line: dict[str, Any]) -> bool:
    """Whether it is a log of a cell that another box has finished and that was brought here from home, where people had
    left the logs on that box. What began here has its claim."""
    is_there = os.path.lexists(os.path.join(paths.folder, _inner(paths, line)))
    return line["role"] == "log" and not is_there and not os.path.lexists(paths.claim)


def _inner(paths: AttemptPaths, line: dict[str, Any]) -> str:
    return os.path.relpath(check_relative_path(line["path"]), paths.relative)


def _reread(paths: AttemptPaths, line: dict[str, Any]) -> dict[str, Any]:
    found = _line(paths, _inner(paths, line), line["role"], line["loader"])
    if (found["bytes"], found["sha256"]) != (line["bytes"], line["sha256"]):
        raise Refused(
            ARTIFACT_INVALID,
            f"{line['path']} is not what was verified when the cell finished",
            "something wrote to a finished attempt: find out what before anything is destroyed",
        )
    return found


def _of_unfinished(
    run: dict[str, Any], attempts: list[AttemptPaths], chosen: policy.Policy, live: bool, freeze: bool
) -> list[dict[str, Any]]:
    """The checkpoints of ``newest_checkpoints``; metrics of the last attempt, and its log when nothing writes to it."""
    files = [
        line
        for line in newest_checkpoints.to_bring(run, attempts)
        if _comes_home(chosen, line["path"].split("/", 2)[2], line["role"])
    ]
    last = attempts[-1]
    if live:
        frozen = freeze_metrics(last, freeze) if "metrics" in chosen.roles else None
        return files + ([frozen] if frozen else [])
    for name, role in (("metrics.jsonl", "metrics"), ("run.log", "log"), ("run.log.1", "log")):
        if os.path.isfile(os.path.join(last.folder, name)) and _comes_home(chosen, name, role):
            files.append(_line(last, name, role, "none"))
    return files


def freeze_metrics(paths: AttemptPaths, keep: bool) -> dict[str, Any] | None:
    """A copy of the whole lines so far: the file itself grows while it would be pulled. None without metrics."""
    try:
        with open(paths.metrics, "rb") as stream:
            data = stream.read()
    except OSError:
        return None
    data = data[: data.rfind(b"\n") + 1]
    if not data:
        return None
    if keep:
        records.write_bytes(paths.frozen_metrics, data)
    name = f"{paths.relative}/{os.path.relpath(paths.frozen_metrics, paths.folder)}"
    sha256 = hashlib.sha256(data).hexdigest()
    return {"path": name, "bytes": len(data), "sha256": sha256, "role": "metrics", "loader": "none"}


def _line(paths: AttemptPaths, inner: str, role: str, loader: str) -> dict[str, Any]:
    check_relative_path(inner)
    try:
        size, sha256 = artifacts.hash_stable(os.path.join(paths.folder, inner))
    except FileNotFoundError as error:
        raise Refused(ARTIFACT_INVALID, f"{paths.relative}/{inner} is gone since it was verified") from error
    except (artifacts.FileChanged, UnsafeName) as error:
        raise Refused(ARTIFACT_INVALID, str(error)) from error
    return {"path": f"{paths.relative}/{inner}", "bytes": size, "sha256": sha256, "role": role, "loader": loader}


def sealed_manifest(layout: Layout, run_id: str) -> dict[str, Any] | None:
    """The manifest that the seal was made for, while every file still has the size it had then. None without one."""
    seal = records.read_record_or_none(layout.seal, "seal")
    kept = attempt.read(layout.run_manifest(run_id), "manifest")
    promised = {run["run_id"]: run["manifest_digest"] for run in (seal or {}).get("runs", [])}
    if not kept or promised.get(run_id) != kept.get("digest"):
        return None
    for line in kept["files"]:
        path = os.path.join(layout.run_dir(run_id), check_relative_path(line["path"]))
        if os.path.islink(path) or not os.path.isfile(path) or os.path.getsize(path) != line["bytes"]:
            return None
    return kept


def current(
    layout: Layout, run_id: str, snapshot: bool = False, keep: bool = True, chosen: policy.Policy | None = None
) -> dict[str, Any]:
    """The manifest for whoever asks: the sealed one while the seal holds, else one built now.

    The files of a snapshot are held until the next manifest, see ``held_files``.

    :param keep: False writes nothing (check mode).
    :param chosen: what comes home of a snapshot; None for the policy in force, under which the seal is made.
    """
    if not snapshot:
        if keep:
            held_files.release(layout, run_id)
        kept = sealed_manifest(layout, run_id)
        if kept is not None:
            return kept
    if index.read(layout) is None:
        raise Refused(USAGE, f"run {run_id!r} is not registered on this box", "deploy it first")
    if not (snapshot and keep):
        return of_run(layout, survey.survey(layout), run_id, snapshot, keep, chosen)
    return _held(layout, run_id, chosen)


def _held(layout: Layout, run_id: str, chosen: policy.Policy | None) -> dict[str, Any]:
    """A snapshot whose files are held. The trainer may remove one between the reading and the holding of it."""
    for _attempt in range(_SNAPSHOTS):
        found = of_run(layout, survey.survey(layout), run_id, snapshot=True, chosen=chosen)
        try:
            held_files.hold(layout, run_id, found["files"])
        except held_files.Gone:
            continue
        return found
    fix = "keep more checkpoints, save less often, or pull again; the run goes on untouched"
    raise Refused(LIVE, f"run {run_id} removes its checkpoints faster than they can be read", fix)
