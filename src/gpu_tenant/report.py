# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant report``: what the boxes of a project have cost, by run, project and platform."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast.api import VastClient
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gpu_tenant import bill, cost, report_story, sql_index
from gpu_tenant.hosts import BoxHost


def draw_up(
    project: str,
    boxes: Sequence[BoxHost],
    client_of: Callable[[str], VastClient],
    database: str = "",
    history: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The report on ``boxes``, every generation of each. What a provider does not tell is noted, and costs nothing.

    :param history: lines of the runner's own history, for what only a runner saw.
    """
    now = records.utc_now()
    found: list[cost.Machine] = []
    notes: list[str] = []
    events: list[dict[str, Any]] = []
    receipts: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for state_dir in sorted({box.required("tenant_state_dir") for box in boxes}):
        named = {box.name for box in boxes if box.required("tenant_state_dir") == state_dir}
        with sql_index.opened(StateStore(state_dir), database) as index:
            notes += [index.note] if index.note else []
            rented = [record for record in index.records("box", project) if record.get("box") in named]
            kinds = [index.records(kind, project) for kind in ("receipt", "contact")]
            lines = index.lines(project)
        billed = _billed([box for box in boxes if box.name in named], rented, client_of, notes)
        found += cost.machines(rented, lines, kinds[0], kinds[1], billed, now)
        events += report_story.events(lines, history, kinds[0], named)
        receipts += report_story.receipt_rows(kinds[0], named)
        drawn, unread = report_story.curves(kinds[0], named)
        curves, notes = curves + drawn, notes + unread
    sums = {kind: {key: one.as_dict() for key, one in by.items()} for kind, by in cost.sums(found).items()}
    return {
        "project": project,
        "at": now,
        "machines": [one.as_dict() for one in found],
        "sums": sums,
        "events": events,
        "receipts": receipts,
        "curves": curves,
        "notes": notes,
    }


def _billed(
    boxes: Iterable[BoxHost],
    rented: Sequence[Mapping[str, Any]],
    client_of: Callable[[str], VastClient],
    notes: list[str],
) -> dict[str, float]:
    """Dollars by the provider's id, from every account that these boxes are rented with."""
    starts = [str(record["created_at"]) for record in rented if record.get("created_at")]
    billed: dict[str, float] = {}
    asked: set[int] = set()
    for box in boxes:
        if not rented or box.text("platform_driver") != "vast":
            continue
        try:
            client = client_of(box.name)
            if id(client) in asked:
                continue
            asked.add(id(client))
            charged = bill.billed(client, starts)
        except TenantFailure as failure:
            notes.append(f"the bill of {box.name}'s account is unknown: {failure}")
            continue
        billed.update({name: parts["total"] for name, parts in charged.items()})
    return billed


def render(told: Mapping[str, Any]) -> RenderableType:
    """The report as text for a terminal."""
    parts: list[RenderableType] = [_machine_table(told["machines"])]
    for kind, by in told["sums"].items():
        parts += [Text(""), Text(f"By {kind}", style="bold"), _sum_table(kind, by)]
    return Group(*parts, *[Text(f"note: {note}") for note in told["notes"]])


def _machine_table(machines: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("box", "instance", "platform", "runs", "accrued $", "billed $", "state")
    for machine in machines:
        runs = ", ".join(machine["runs"]) or cost.NO_RUN
        amounts = [_dollars(machine["accrued"]), _dollars(machine["billed"])]
        name = f"{machine['box']} g{machine['generation']}"
        state = machine["state"] or "unknown"
        table.add_row(name, machine["provider_id"], machine["platform"], runs, *amounts, state)
    return table


def _sum_table(kind: str, by: Mapping[str, Mapping[str, Any]]) -> Table:
    table = _table(kind, "machines", "cost $", "not known")
    for key, one in sorted(by.items()):
        part = "" if not one["unknown"] else f"{one['unknown']} machines; the others {_dollars(one['known'])}"
        table.add_row(key, str(one["machines"]), _dollars(one["total"]), part)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _dollars(amount: float | None) -> str:
    return "unknown" if amount is None else f"{amount:.4f}"
