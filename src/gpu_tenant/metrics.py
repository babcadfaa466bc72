# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The state of watched boxes as a textfile for Prometheus' node_exporter. A number that is not known has no line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import records

from gpu_tenant import money_ladder

# Of a row: the metric, its help. All are gauges.
_GAUGES = {
    "price_per_hour": ("gpu_tenant_price_usd_per_hour", "What the provider asks for the box now."),
    "spent_usd": ("gpu_tenant_run_spent_usd", "What the run has cost on this box, estimated from the journal."),
    "budget_usd": ("gpu_tenant_run_budget_usd", "What the run may cost."),
    "project_budget_usd": ("gpu_tenant_project_budget_usd", "What all that the box's project rents may cost."),
    "at_risk_s": ("gpu_tenant_work_at_risk_seconds", "Training since the last checkpoint that outlives the box."),
    "at_risk_usd": ("gpu_tenant_work_at_risk_usd", "What that training cost."),
    "rpo_s": ("gpu_tenant_rpo_seconds", "How much training may be at risk before checkpoints are pulled."),
    "step": ("gpu_tenant_run_step", "The step that the run has reached."),
    "loss": ("gpu_tenant_run_loss", "The last loss that the trainer told."),
    "superseded": ("gpu_tenant_superseded_boxes", "Replaced machines of this box that still bill."),
}
_RUNG = "gpu_tenant_run_budget_rung"


def text_of(
    rows: Iterable[Mapping[str, Any]], now: float, accounts: Mapping[str, Mapping[str, Any]] | None = None
) -> str:
    """The textfile: one series per box and metric.

    :param rows: as :meth:`Watch.row` makes them.
    :param now: seconds since the epoch; a file that is no longer written is told by it.
    :param accounts: the clock of each account's money.
    """
    listed = list(rows)
    lines = [*_head("gpu_tenant_verdict", "1 for the verdict on the box.")]
    lines += [f"gpu_tenant_verdict{_labels(row, verdict=row['verdict'])} 1" for row in listed]
    for key, (name, what) in _GAUGES.items():
        lines += _head(name, what)
        lines += [f"{name}{_labels(row)} {float(row[key])!r}" for row in listed if row.get(key) is not None]
    lines += _head(_RUNG, "How far the run is through its budget: 1 warning, 2 no new boxes, 3 spent.")
    rungs = [(row, money_ladder.RUNGS.index(row["budget_rung"])) for row in listed if _has_budget(row)]
    lines += [f"{_RUNG}{_labels(row)} {rung}" for row, rung in rungs]
    lines += _head("gpu_tenant_clock_left_seconds", "Until something happens to the box or the account by itself.")
    lines += [f"gpu_tenant_clock_left_seconds{where} {left}" for where, left in _clocks(listed, accounts or {}).items()]
    lines += _head("gpu_tenant_watch_round_timestamp_seconds", "When the last round ended.")
    return "\n".join([*lines, f"gpu_tenant_watch_round_timestamp_seconds {now!r}", ""])


def _has_budget(row: Mapping[str, Any]) -> bool:
    return row.get("budget_usd") is not None and row.get("budget_rung") is not None


def write(
    path: str, rows: Iterable[Mapping[str, Any]], now: float, accounts: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Replace the textfile whole, so that no reader ever sees half of it."""
    records.write_bytes(path, text_of(rows, now, accounts).encode(), mode=0o644)


def _clocks(rows: Iterable[Mapping[str, Any]], accounts: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Seconds by labels. Of two clocks with one effect the more urgent, which comes first: a series has one value."""
    told = [(_labels(row, clock=one["effect"]), one) for row in rows for one in row.get("countdowns", ())]
    told += [(_braced({"account": name, "clock": one["effect"]}), one) for name, one in accounts.items()]
    found: dict[str, int] = {}
    for labels, one in told:
        if one["left_s"] is not None:
            found.setdefault(labels, one["left_s"])
    return found


def _head(name: str, what: str) -> list[str]:
    return [f"# HELP {name} {what}", f"# TYPE {name} gauge"]


def _labels(row: Mapping[str, Any], **more: str) -> str:
    return _braced({"project": row["project"], "box": row["box"], "run": row["run"], **more})


def _braced(labels: Mapping[str, Any]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(str(value))}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
