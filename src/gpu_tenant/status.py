# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant status``: one line per box, danger clocks first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from gpu_tenant.hosts import BoxHost
from gpu_tenant.observe import Observation
from gpu_tenant.progress import duration

# Which of a profile's clocks tick in which provider state.
_TICKING = {"stopped": ("stopped", "always"), "outbid": ("stopped", "always"), "running": ("always", "running")}


def row(host: BoxHost, seen: Observation) -> dict[str, Any]:
    """One box as plain values; None means unknown."""
    run, item = seen.run, seen.item
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
        "eta_s": run.eta_s if run else None,
        "price_per_hour": item.dph_total if item else None,
        "superseded": [box.provider_id for box in seen.superseded],
        "clocks": clocks(host, seen.provider),
        "problem": seen.problem,
        "at": seen.at,
    }


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
    steps = f" of {values['steps']}" if values["steps"] else ""
    progress = "" if values["step"] is None else f"step {values['step']}{steps}"
    if values["eta_s"] is not None:
        progress += f", {duration(values['eta_s'])} left"
    price = values["price_per_hour"]
    notes = [values["problem"], *values["clocks"]]
    if values["superseded"]:
        notes.insert(0, f"superseded and billing: {', '.join(values['superseded'])}")
    generation = f" g{values['generation']}" if values["generation"] else ""
    instance = f"{values['provider_id']}{generation}" if values["provider_id"] else ""
    return {
        "box": values["box"],
        "provider": f"{values['provider']} {instance}".strip(),
        "run": values["run_state"] or ("" if values["contact"] == "not_tried" else values["contact"]),
        "progress": progress,
        "$/hour": "" if price is None else f"{price:.4f}",
        "watch out": "; ".join(note for note in notes if note),
    }


def table(rows: list[dict[str, Any]]) -> Table:
    drawn = Table(box=None, padding=(0, 2, 0, 0))
    cells = [line(values) for values in rows]
    for name in cells[0] if cells else ():
        drawn.add_column(name, overflow="fold")
    for each in cells:
        drawn.add_row(*each.values())
    return drawn
