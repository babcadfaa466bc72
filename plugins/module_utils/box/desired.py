# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What people asked of the box: run or hold, runs stopped for now, failures forgiven. Changed under the box lock."""

from __future__ import annotations

import os
from typing import Any

from . import process, records, reserve
from .judge import Orders
from .layout import Layout

RUN, HOLD = "run", "hold"
_BATCH = {"boot_id": "batch", "pid1_start": 0}


def read(layout: Layout) -> dict[str, Any]:
    """``{desired, stopped: {run_id: boot}, forgiven: {run_id: {cell: attempt}}}``. A damaged record means hold."""
    try:
        record = records.read_record_or_none(layout.desired, "desired") or {}
    except records.RecordError:
        # Nobody can say any more whether the box was on hold: not starting is the choice that can be undone.
        record = {"desired": HOLD, "damaged": True}
    return {
        "desired": HOLD if record.get("desired") == HOLD else RUN,
        "stopped": _mapping(record.get("stopped")),
        "forgiven": _mapping(record.get("forgiven")),
        "damaged": bool(record.get("damaged")),
    }


def write(layout: Layout, wanted: dict[str, Any]) -> None:
    keep = {key: wanted[key] for key in ("desired", "stopped", "forgiven")}
    record = dict(keep, changed_at=records.utc_now())
    # To stop what fills a disk is an order that cannot wait for space.
    reserve.spend(layout.reserve, lambda: records.write_record(layout.desired, "desired", record))


def orders(layout: Layout, wanted: dict[str, Any] | None = None) -> Orders:
    """The orders that hold now. A stop lasts until the box starts again; a hold lasts until a start."""
    wanted = read(layout) if wanted is None else wanted
    now = life(layout)
    stopped = frozenset(run_id for run_id, at in wanted["stopped"].items() if at == now)
    return Orders(wanted["desired"], os.path.lexists(layout.seal), stopped)


def life(layout: Layout) -> dict[str, Any]:
    """What a stop lasts for: this life of the box. A batch job moves between machines, so no boot ends a stop of it."""
    batch = process.OF_SLURM in os.environ or os.path.exists(layout.batch)
    return dict(_BATCH) if batch else process.current_boot().as_dict()


def forgiven(wanted: dict[str, Any], run_id: str, cell: str) -> int:
    """The highest attempt of a cell whose failure no longer counts."""
    number = _mapping(wanted["forgiven"].get(run_id)).get(cell, 0)
    return number if isinstance(number, int) else 0


def _mapping(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}
