# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant status``: one line per box, danger clocks first."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box.records import RecordError, read_record
from ansible_collections.tenant.gpu.plugins.module_utils.box.wording import size
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from rich.table import Table
from rich.text import Text

from gpu_tenant.hosts import BoxHost
from gpu_tenant.observe import Observation
from gpu_tenant.progress import training_text

# Which of a profile's clocks tick in which provider state.
_TICKING = {"stopped": ("stopped", "always"), "outbid": ("stopped", "always"), "running": ("always", "running")}


def row(host: BoxHost, seen: Observation) -> dict[str, Any]:
    """One box as plain values; None means unknown."""
    run, item = seen.run, seen.item
    known = receipts(host, seen)
    return {
        "box": host.name,
        "platform": host.text("platform_name"),
        "provider": seen.provider,
        "provider_id": item.provider_id if item else None,
        "generation": seen.generation or None,
        "contact": seen.contact,
        "run_state": run.state if run else None,
        "step": run.step if run else None,
        "steps": run.steps if run else None,
        "loss": run.loss if run else None,
        "steps_per_s": run.steps_per_s if run else None,
        "eta_s": run.eta_s if run else None,
        "price_per_hour": item.dph_total if item else None,
        "superseded": [box.provider_id for box in seen.superseded],
        "not_pulled": not_pulled(known),
        "waits_for": sorted({str(part) for receipt in known for part in receipt.get("waits_for") or []}),
        "clocks": clocks(host, seen.provider),
        "warnings": list(seen.warnings),
        "problem": seen.problem,
        "at": seen.at,
    }


def receipts(host: BoxHost, seen: Observation) -> list[dict[str, Any]]:
    """The receipts of the machine that is there now; a damaged one tells nothing here, and the gate refuses it."""
    store, project = StateStore(host.required("tenant_state_dir")), host.required("tenant_project")
    generation = seen.generation
    if not host.text("platform_driver"):
        # No provider numbers the machines of the inventory.
        generation = max(1, store.last_generation(project, host.name))
    found = []
    for path in sorted(Path(store.path("receipts", project)).glob(f"*/{glob.escape(host.name)}.g{generation}.json")):
        with contextlib.suppress(RecordError):
            found.append(read_record(str(path), "receipt"))
    return found


def not_pulled(known: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """What its harvests left on the box, over all runs: it dies with it."""
    totals = [receipt.get("not_pulled_totals") or {} for receipt in known]
    return {name: sum(int(each.get(name) or 0) for each in totals) for name in ("files", "bytes")}


def clocks(host: BoxHost, provider: str) -> list[str]:
    """The danger clocks of the platform that tick in this state."""
    listed = host.variables.get("platform_clocks")
    starts = _TICKING.get(provider, ())
    told = []
    for clock in listed if isinstance(listed, list) else []:
        if isinstance(clock, Mapping) and clock.get("starts_at") in starts:
            after = str(clock.get("after") or "")
            told.append(f"{clock.get('effect')}" + (f" (after {after})" if after not in ("", "0s") else ""))
    return told


def line(values: Mapping[str, Any]) -> dict[str, str]:
    """A row as the cells of a table."""
    price = values["price_per_hour"]
    notes = [values["problem"], *values["warnings"], *values["clocks"]]
    if values["superseded"]:
        notes.insert(0, f"superseded and billing: {', '.join(values['superseded'])}")
    left, waits_for = values["not_pulled"], values["waits_for"]
    if left["files"]:
        notes.append(f"{left['files']} files ({size(left['bytes'])}) were not pulled, see its receipt")
    if waits_for:
        notes.append(f"its sharded results wait for {', '.join(waits_for)}")
    generation = f" g{values['generation']}" if values["generation"] else ""
    instance = f"{values['provider_id']}{generation}" if values["provider_id"] else ""
    return {
        "box": values["box"],
        "provider": f"{values['provider']} {instance}".strip(),
        "run": values["run_state"] or ("" if values["contact"] == "not_tried" else values["contact"]),
        "progress": training_text(values),
        "$/hour": "" if price is None else f"{price:.4f}",
        "watch out": "; ".join(note for note in notes if note),
    }


def table(rows: list[dict[str, Any]]) -> Table:
    drawn = Table(box=None, padding=(0, 2, 0, 0))
    cells = [line(values) for values in rows]
    for name in cells[0] if cells else ():
        drawn.add_column(name, overflow="fold")
    for each in cells:
        # As text, not as markup: a box chooses some of these words.
        drawn.add_row(*(Text(value) for value in each.values()))
    return drawn
