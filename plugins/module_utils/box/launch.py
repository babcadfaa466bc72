# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The launch: the controller's word that a run of several boxes may start, and the command by which each starts it.

A run with ``nodes`` has no launch until every box has passed the preflight, so that no box can start it alone, not even
after a reboot. A stop takes the launch back; a reboot leaves it, so that a box that was lost joins the others again.
"""

from __future__ import annotations

import os
import re
from typing import Any

from . import records, reserve, run_record, srun_step
from .layout import Layout
from .refusal import LIVE, MISMATCH, USAGE, Refused

_KEYS = ("run_id", "spec_sha256", "argv", "env", "leader", "members", "wait_s")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*\Z")
ASK_TRAIN = "run the train playbook on all boxes of the run: it starts them together or not at all"


def path(layout: Layout, run_id: str) -> str:
    return os.path.join(layout.run_dir(run_id), "launch.json")


def check(record: object, run: dict[str, Any]) -> dict[str, Any]:
    """``record`` if it is a launch of this very run, else Refused."""
    if not isinstance(record, dict) or any(key not in record for key in _KEYS):
        raise Refused(USAGE, "the launch cannot be used: it lacks a key", ASK_TRAIN)
    if (record["run_id"], record["spec_sha256"]) != (run["run_id"], run["spec_sha256"]):
        raise Refused(MISMATCH, f"the launch is for another spec than run {run['run_id']} has on this box", ASK_TRAIN)
    if not run["nodes"]:
        raise Refused(USAGE, f"run {run['run_id']} works on one box: it needs no launch")
    argv, environment = record["argv"], record["env"]
    named = isinstance(environment, dict) and all(_VARIABLE.match(str(name)) for name in environment)
    if not argv or not run_record.is_argv(argv) or not named or not records.is_count(record["wait_s"]):
        raise Refused(USAGE, "the launch cannot be used: argv, env or wait_s is not what it should be", ASK_TRAIN)
    return {key: record[key] for key in _KEYS}


def read(layout: Layout, run: dict[str, Any]) -> dict[str, Any] | None:
    """The launch of a run of several boxes; None when it has none, or one that was taken back, is damaged or of another
    spec."""
    found = _read_any(layout, run)
    return None if found is None or found["withdrawn"] else {key: found[key] for key in _KEYS}


def _read_any(layout: Layout, run: dict[str, Any]) -> dict[str, Any] | None:
    if not run["nodes"]:
        return None
    try:
        record = records.read_record(path(layout, run["run_id"]), "launch")
        return dict(check(record, run), withdrawn=record.get("withdrawn") is True)
    except (records.RecordError, Refused):
        return None


def write(layout: Layout, record: dict[str, Any], withdrawn: bool = False) -> None:
    """Give the launch, or take it back: then it still says which box was to write what."""
    whole, where = dict(record, withdrawn=withdrawn), path(layout, record["run_id"])
    reserve.spend(layout.reserve, lambda: records.write_record(where, "launch", whole))


def refuse_while_live(known: dict[str, Any] | None, wanted: dict[str, Any], live: bool) -> None:
    """Refused(LIVE): what lives under one launch cannot be given another."""
    if live and known != wanted:
        what = f"run {wanted['run_id']} has a live cell under another launch"
        raise Refused(LIVE, what, "stop the run on all of its boxes, then train again")


def trainer_argv(layout: Layout, run: dict[str, Any], cell: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    """Command and further environment of a cell: the launch's for a run of several boxes, else the run's own.

    :raises Refused: USAGE, when the boxes of the run were not launched together.
    """
    if not run["nodes"]:
        return run_record.trainer_argv(run, cell), {}
    known = read(layout, run)
    if known is None:
        raise Refused(
            USAGE, f"run {run['run_id']} works on {run['nodes']['count']} boxes and was not launched", ASK_TRAIN
        )
    environment = {str(name): str(value) for name, value in known["env"].items()}
    argv = run_record.trainer_argv(dict(run, command=known["argv"]), cell)
    if not srun_step.is_wanted(run):
        return argv, environment
    environment.update(srun_step.environment(run["nodes"]))
    srun_step.end_leftovers()
    return srun_step.wrapped(argv, run["nodes"]["count"]), environment


def may_lack_artifacts(layout: Layout, run: dict[str, Any]) -> bool:
    """Whether another box is the one that writes what is written once: rank 0 lives there."""
    known = _read_any(layout, run)
    return known is not None and known["leader"] is False
