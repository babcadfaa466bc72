# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The index: every run of the box, in the order in which their cells run."""

from __future__ import annotations

from typing import Any

from . import records, run_record
from .layout import Layout
from .refusal import LIVE, MISMATCH, Refused

# With one spec hash these cannot differ, unless the caller is confused.
_COVERED_BY_SPEC = ("project", "code_sha256", "cells", "artifacts")


def read(layout: Layout) -> dict[str, Any] | None:
    """The index, or None before the first run was registered. RecordError when it cannot be trusted."""
    index = records.read_record_or_none(layout.index, "index")
    if index is not None and not _is_usable(index):
        raise records.RecordError(f"{layout.index} lacks its identity or its list of runs")
    return index


def _is_usable(index: dict[str, Any]) -> bool:
    runs = index.get("runs")
    if not isinstance(runs, list) or not isinstance(index.get("generation"), int):
        return False
    return all(isinstance(run, dict) and isinstance(run.get("run_id"), str) for run in runs)


def run_ids(index: dict[str, Any] | None) -> list[str]:
    return [str(run["run_id"]) for run in (index or {}).get("runs", [])]


def merged(index: dict[str, Any] | None, run: dict[str, Any], now: str) -> dict[str, Any]:
    """``index`` with ``run`` in it; the very same value when that changes nothing.

    :raises Refused: MISMATCH for a run of another box, or of a generation that this box has left behind.
    """
    if index is None:
        index = dict(run_record.identity(run), runs=[])
    _check_box(index, run)
    entry = {"run_id": run["run_id"], "spec_sha256": run["spec_sha256"], "cells": [cell["id"] for cell in run["cells"]]}
    entries = list(index["runs"])
    known = next((n for n, each in enumerate(entries) if each["run_id"] == run["run_id"]), None)
    if known is None:
        entries.append(dict(entry, added_at=now))
    elif any(entries[known].get(key) != value for key, value in entry.items()):
        entries[known] = dict(entry, added_at=now)
    return dict(index, **run_record.identity(run), runs=entries)


def _check_box(index: dict[str, Any], run: dict[str, Any]) -> None:
    fix = "check the inventory: this disk belongs to that box"
    for key in ("project", "box"):
        if index.get(key) != run[key]:
            raise Refused(MISMATCH, f"this box is {key} {index.get(key)!r}, the run is for {run[key]!r}", fix)
    if run["generation"] < index["generation"]:
        raise Refused(
            MISMATCH,
            f"this box is generation {index['generation']}, the run is for {run['generation']}",
            "locate it again",
        )
    same = run["generation"] == index["generation"]
    if same and str(index.get("provider_id")) != run["provider_id"]:
        raise Refused(
            MISMATCH,
            f"this box is provider id {index.get('provider_id')!r}, the run is for {run['provider_id']!r}",
            fix,
        )


def check_replacement(known: dict[str, Any], run: dict[str, Any], live: bool) -> None:
    """Refuse to replace the record ``known`` of a run while that would be unsafe or a contradiction."""
    if known["spec_sha256"] == run["spec_sha256"]:
        for key in _COVERED_BY_SPEC:
            if known[key] != run[key]:
                raise Refused(MISMATCH, f"run {run['run_id']}: the same spec_sha256, but another {key!r}")
        return
    if live and not only_appends(known, run):
        raise Refused(
            LIVE,
            f"run {run['run_id']} has a live cell of another spec ({known['spec_sha256'][:12]})",
            "add new cells behind the known ones and change nothing else, or stop the run first, or give the new spec "
            "a run id of its own",
        )


def only_appends(known: dict[str, Any], run: dict[str, Any]) -> bool:
    """Whether ``run`` is ``known`` with cells added behind its own: then what lives, and what is done, is as it was."""
    if run_record.work_sha256(known) != run_record.work_sha256(run) or known["code_sha256"] != run["code_sha256"]:
        return False
    first = run["cells"][: len(known["cells"])]
    return bool(first == known["cells"]) and len(run["cells"]) > len(first)
