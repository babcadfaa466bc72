# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""An order to fetch inputs: kept on the disk, so that it outlives the login and the boot that brought it.

It is readable by its user only: a presigned URL in it is a secret of its bearer until it expires.
"""

from __future__ import annotations

import os
from typing import Any

from . import attempt, detach, diary, inputs, locks, records
from .layout import Layout
from .refusal import USAGE, Refused

FETCHING, PROVEN, FAILED, INTERRUPTED, ABSENT = "fetching", "proven", "failed", "interrupted", "absent"
_NUMBERS = {
    "deadline_s": (86400.0, 1.0, 86400.0 * 30),
    "stall_s": (60.0, 0.1, 3600.0),
    "tries": (12, 1, 1000),
    "first_wait_s": (1.0, 0.0, 600.0),
    "connections": (4, 1, 64),
    "reserve_bytes": (512 * 1024 * 1024, 0, 2**60),
    "reserve_inodes": (1000, 0, 2**50),
}


def check(value: object) -> dict[str, Any]:
    """The order, whole. :raises Refused: USAGE, naming what is wrong."""
    if not isinstance(value, dict):
        raise Refused(USAGE, "the order is not a JSON object")
    entries = inputs.check(value.get("inputs"))
    if not entries:
        raise Refused(USAGE, "the order names no inputs")
    whole: dict[str, Any] = {"inputs": entries}
    for key in ("env_file", "proxy_hook"):
        whole[key] = str(value.get(key) or "")
    for key in ("urls", "env"):
        found = value.get(key) or {}
        if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
            raise Refused(USAGE, f"the order's {key!r} must map names to texts")
        whole[key] = {str(name): text for name, text in found.items()}
    for key, (default, least, most) in _NUMBERS.items():
        number = value.get(key, default)
        usable = isinstance(number, (int, float)) and not isinstance(number, bool) and least <= number <= most
        if not usable:
            raise Refused(USAGE, f"the order's {key!r} must be a number from {least:g} to {most:g}")
        whole[key] = number
    return whole


def read(layout: Layout, set_digest: str) -> dict[str, Any]:
    """The order of a set. RecordMissing or RecordError when it cannot be followed."""
    found = records.read_record(inputs.Store(layout).order(set_digest), "fetch-order")
    try:
        return check(found)
    except Refused as refused:
        raise records.RecordError(refused.what) from refused


def write(layout: Layout, set_digest: str, order: dict[str, Any]) -> None:
    records.write_record(inputs.Store(layout).order(set_digest), "fetch-order", order)


def is_running(layout: Layout, set_digest: str) -> bool:
    return locks.is_held(inputs.Store(layout).lock(set_digest))


def status(layout: Layout, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """How far the fetch of these inputs is, computed now: ``{set, folder, state, files, bytes, why, …}``."""
    store, set_digest = inputs.Store(layout), inputs.digest(entries)
    # Liveness first: a fetcher that ends in between then shows as still at work, and is looked at again.
    running = is_running(layout, set_digest)
    unproven = inputs.problems(layout, entries)
    known = attempt.read(store.progress(set_digest), "fetch-progress")
    state = _state(running, unproven, known)
    keys = ("files", "files_total", "bytes", "bytes_total", "fetched_bytes", "rate", "now", "updated_at")
    shown = {key: known.get(key) for key in keys}
    why = "" if state == PROVEN else str(known.get("why") or "; ".join(unproven))
    return {
        "set": set_digest,
        "folder": store.folder(set_digest),
        "state": state,
        "why": why,
        "fix": str(known.get("fix") or "") if state == FAILED else "",
        "code": known.get("code") if state == FAILED else None,
        **shown,
    }


def _state(running: bool, unproven: list[str], known: dict[str, Any]) -> str:
    if running:
        return FETCHING
    if not unproven:
        return PROVEN
    told = known.get("state")
    if told == FETCHING:
        return INTERRUPTED
    return FAILED if told == FAILED else ABSENT


def start(layout: Layout, set_digest: str, program: tuple[str, ...]) -> None:
    """Start the fetcher apart from this login. :raises Refused: it did not start.

    Where the logout ends it all the same, the play that waits for it is not over: the next deploy goes on with it.
    """
    argv = [*program, "--root", layout.root, "fetcher", "--set", set_digest]
    detach.start_by_fork(argv, layout.log)


def resume(layout: Layout, runs: list[dict[str, Any]], program: tuple[str, ...]) -> list[str]:
    """Go on with the fetches of ``runs`` that a boot cut short; the sets that were taken up again."""
    taken = []
    for entries in [run["inputs"] for run in runs if run["inputs"]]:
        found = status(layout, entries)
        if found["state"] == INTERRUPTED and os.path.exists(inputs.Store(layout).order(found["set"])):
            try:
                start(layout, found["set"], program)
                taken.append(str(found["set"]))
            except Refused as refused:
                # Other runs go on; the cells of this one are blocked and say why.
                diary.say("supervisor", f"the fetch {found['set']} could not be taken up again: {refused.what}")
    return taken
