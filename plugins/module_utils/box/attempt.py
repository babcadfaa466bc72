# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Attempts on the disk: claimed once, described by records that are whole or not there, observed through /proc."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from . import half_saved, judge, locks, process, records, run_record
from .layout import AttemptPaths, Layout
from .names import is_temporary

ATTEMPT_VARIABLE = "TENANT_ATTEMPT"
# What tenant_checkpoint keeps beside checkpoints: neither shows that anything was saved.
_BESIDE_CHECKPOINTS = frozenset(["attempts.json", "quarantine"])


def claim(layout: Layout, run: dict[str, Any], cell: dict[str, Any], number: int) -> AttemptPaths:
    """Make the folders of attempt ``number`` and say whose work it is. Safe to repeat for one that never began.

    Its predecessors are dead by then: what they had half saved goes.
    """
    for earlier in layout.attempt_numbers(run["run_id"], cell["id"]):
        if earlier < number:
            half_saved.remove(layout.attempt(run["run_id"], cell["id"], earlier).checkpoints)
    paths = layout.attempt(run["run_id"], cell["id"], number)
    os.makedirs(paths.checkpoints, mode=0o700, exist_ok=True)
    records.write_record(paths.claim, "claim", work(run, cell, number))
    return paths


def work(run: dict[str, Any], cell: dict[str, Any], number: int) -> dict[str, Any]:
    """The keys that every record of an attempt carries."""
    return dict(
        run_record.identity(run),
        run_id=run["run_id"],
        spec_sha256=run["spec_sha256"],
        cell=cell["id"],
        attempt=number,
        config_sha256=run_record.config_sha256(run, cell),
    )


def read(path: str, name: str) -> dict[str, Any]:
    """The record at ``path``, or an empty one when it is absent or damaged: other evidence must decide then."""
    try:
        return records.read_record(path, name)
    except records.RecordError:
        return {}


def write_status(paths: AttemptPaths, work_keys: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Merge ``changes`` into the status. One writer at a time: the shim while it lives, then the supervisor."""
    return records.write_record(paths.status, "status", {**read(paths.status, "status"), **work_keys, **changes})


def write_exit(paths: AttemptPaths, work_keys: dict[str, Any], **facts: Any) -> dict[str, Any]:
    """Record how the trainer ended: ``wrapper``, ``child``, ``cause``, ``stop_asked``, times."""
    return records.write_record(paths.exit, "exit", dict(work_keys, ended_at=records.utc_now(), **facts))


def work_of(paths: AttemptPaths) -> dict[str, Any]:
    """Whose work an attempt is, from whichever of its records is whole."""
    for path, name in ((paths.claim, "claim"), (paths.status, "status"), (paths.exit, "exit"), (paths.done, "done")):
        found = read(path, name)
        if found.get("config_sha256"):
            return found
    return {}


def present_work(run: dict[str, Any], cell: str) -> str:
    """The work that the run, as it is registered now, has for a cell; empty for a cell that it has no more."""
    return next((run_record.config_sha256(run, each) for each in run["cells"] if each["id"] == cell), "")


# Not the spec: one that differs in other cells only asks for the same work in this one.
_SAME_WORK = ("project", "run_id", "cell", "config_sha256")


def is_same_work(found: dict[str, Any], keys: dict[str, Any]) -> bool:
    """Whether a record is of the very work that ``keys`` (of :func:`work`) name, under whatever spec it was begun."""
    return all(found.get(key) == keys[key] for key in _SAME_WORK)


def trainer_of(paths: AttemptPaths) -> process.Identity | None:
    """The trainer that the status names."""
    return process.identity_from(read(paths.status, "status").get("process"))


def shim_of(paths: AttemptPaths) -> process.Identity | None:
    return process.identity_from(read(paths.status, "status").get("shim"))


def earlier_life(trainer: process.Identity | None) -> str:
    """``rebooted`` or ``restarted`` when the trainer belonged to an earlier life of the box, else empty."""
    seen = process.observe(trainer)
    return seen if seen in process.EARLIER_LIVES else ""


def members(paths: AttemptPaths) -> list[process.Identity]:
    """Every living process of the attempt, whatever became of its records: its environment names the folder."""
    return process.carrying(ATTEMPT_VARIABLE, paths.folder)


def is_alive(paths: AttemptPaths) -> bool:
    """Whether the shim or the trainer lives. Without a usable status, lock and processes are asked."""
    status = read(paths.status, "status")
    identities = [process.identity_from(status.get(key)) for key in ("process", "shim")]
    if any(process.is_elsewhere(identity) for identity in identities) and exit_facts(read(paths.exit, "exit")):
        # Of a job on another machine only the job can be asked, and that outlives its attempts.
        return False
    if any(process.observe(identity) == process.ALIVE for identity in identities):
        return True
    if locks.is_held(paths.lock):
        return True
    if status or not os.path.exists(paths.lock):
        return False
    return bool(members(paths))


def exit_facts(record: dict[str, Any]) -> judge.ExitFacts | None:
    """The facts in an exit record; None when it holds none."""
    wrapper, child = record.get("wrapper"), record.get("child")
    if not isinstance(wrapper, int) or not (child is None or isinstance(child, int)):
        return None
    failure, seconds = record.get("failure"), record.get("seconds")
    return judge.ExitFacts(
        wrapper,
        child,
        str(record.get("cause", "exit")),
        bool(record.get("stop_asked")),
        str(failure.get("class", "")) if isinstance(failure, dict) else "",
        float(seconds) if isinstance(seconds, (int, float)) else 0.0,
    )


def is_done(paths: AttemptPaths, keys: dict[str, Any]) -> bool:
    """Whether a whole done record says that exactly this work is finished."""
    found = read(paths.done, "done")
    return is_same_work(found, keys) and isinstance(found.get("artifacts"), list)


def observe(paths: AttemptPaths, keys: dict[str, Any]) -> judge.AttemptFacts:
    """The attempt as it is now."""
    if is_done(paths, keys):
        return judge.AttemptFacts(paths.number, phase=judge.DONE, begun=True, done=True)
    # Liveness first: an attempt that ends in between then shows both, and is judged again, never twice at work.
    alive = is_alive(paths)
    status = read(paths.status, "status")
    ended = exit_facts(read(paths.exit, "exit"))
    trainer = process.identity_from(status.get("process"))
    wrapper = (status.get("exit") or {}).get("wrapper")
    return judge.AttemptFacts(
        number=paths.number,
        phase=str(status.get("state", "")),
        begun=ended is not None or trainer is not None or (not status and os.path.exists(paths.lock)),
        alive=alive,
        exit=ended,
        wrapper=wrapper if isinstance(wrapper, int) else None,
        saved=_has_checkpoint(paths),
        earlier_life=earlier_life(trainer),
        why=str(status.get("why") or (read(paths.exit, "exit").get("why") if ended else "") or ""),
    )


def _has_checkpoint(paths: AttemptPaths) -> bool:
    """Whether anything whole lies in the checkpoint folder; savers rename whole files into place."""
    try:
        names = set(os.listdir(paths.checkpoints)) - _BESIDE_CHECKPOINTS
        return any(not is_temporary(name) for name in names)
    except OSError:
        return False


def observe_cell(layout: Layout, run: dict[str, Any], cell: dict[str, Any], forgiven: int = 0) -> judge.CellFacts:
    """Every attempt of the cell that does the work which the run's present spec asks for, and whatever else lives: it
    holds its cards and writes on, so that it is waited for before anything is begun or sealed."""
    keys = work(run, cell, 0)
    numbers = layout.attempt_numbers(run["run_id"], cell["id"])
    attempts = []
    for number in numbers:
        paths = layout.attempt(run["run_id"], cell["id"], number)
        known = work_of(paths)
        # One without any record that is whole is judged too: it may live.
        if not known or is_same_work(known, keys) or is_alive(paths):
            attempts.append(observe(paths, keys))
    return judge.CellFacts(
        run_id=run["run_id"],
        cell=cell["id"],
        attempts=tuple(attempts),
        highest=max(numbers, default=0),
        retries=run["retries"]["max"],
        forgiven=forgiven,
        wait_s=float(run["nodes"].get("wait_s", 0)),
    )


def resume_dirs(layout: Layout, run: dict[str, Any], cell_id: str, number: int) -> list[str]:
    """Where earlier checkpoints of the same work lie: earlier attempts, newest first, then what was brought here."""
    found = []
    keys = work(run, run_record.cell_of(run, cell_id), number)
    for earlier in reversed(layout.attempt_numbers(run["run_id"], cell_id)):
        paths = layout.attempt(run["run_id"], cell_id, earlier)
        if earlier < number and is_same_work(work_of(paths), keys) and os.path.isdir(paths.checkpoints):
            found.append(paths.checkpoints)
    brought = brought_dir(layout, run, cell_id)
    return found + ([brought] if os.path.isdir(brought) else [])


def keep_brought(layout: Layout, known: dict[str, Any], run: dict[str, Any]) -> None:
    """When ``run`` appends cells to ``known``: what was brought for cells that stay as they are stays with them. By a
    link, because a trainer may be reading it."""
    for cell in known["cells"]:
        old, new = (brought_dir(layout, each, cell["id"]) for each in (known, run))
        if os.path.isdir(old) and not os.path.lexists(new):
            os.symlink(os.path.basename(old), new)


def brought_dir(layout: Layout, run: dict[str, Any], cell_id: str) -> str:
    """Where deploy puts checkpoints from home: those of another spec must not be found here."""
    return os.path.join(layout.cell_dir(run["run_id"], cell_id), "resume", run["spec_sha256"][:12])


def end_leftovers(layout: Layout, run_id: str, cell_id: str) -> int:
    """End processes that earlier attempts of the cell left behind (workers that hold GPU memory). How many."""
    killed = 0
    for number in layout.attempt_numbers(run_id, cell_id):
        with contextlib.suppress(OSError):
            killed += process.end_all(members(layout.attempt(run_id, cell_id, number)))
    return killed
