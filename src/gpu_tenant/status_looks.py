# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Looks at the boxes of a job, and how they are shown: once, or again and again."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass, field
from typing import Any

import click
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from rich.live import Live

from gpu_tenant import exit_codes, fleet, job
from gpu_tenant import status as statuses
from gpu_tenant.observe import refuse_blindness
from gpu_tenant.progress import console_for
from gpu_tenant.status_view import StatusView


@dataclass(frozen=True)
class Look:
    """What one look found: a row per box, the money of each account, and what kept boxes from being looked at."""

    rows: list[dict[str, Any]]
    accounts: list[dict[str, Any]]
    refused: list[TenantFailure] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        lost = [values for values in self.rows if "unreachable" in (values["provider"], values["contact"])]
        kinds = [failure.kind for failure in self.refused] or ["unreachable" for _values in lost]
        return exit_codes.of_kinds(kinds)


def look(work: job.Job) -> Look:
    """Look at all boxes of the job now; one whose account refuses the key is told beside the others.

    :raises TenantFailure: no box at all could be looked at, and waiting does not mend that.
    """
    boxes = work.inventory.boxes
    seen = work.observer.observe(each_alone=True)
    refuse_blindness(seen.values())
    known = fleet.read(boxes, work.project)
    sights = fleet.sights(work.workspace.root, work.project)
    clocks = [client.provider_now() for client, _rows in work.observer.listings]
    rows = [
        statuses.row(
            host,
            seen[host.name],
            known[host.required("tenant_state_dir")],
            sights.get(host.name),
            next((moment for moment in clocks if moment is not None), None),
        )
        for host in boxes
    ]
    refused = [one.refused for one in seen.values() if one.refused is not None]
    return Look(rows, fleet.account_clocks(fleet.telling_credit(work.observer.listings)), refused)


def show(found: Look, as_json: bool) -> None:
    if not as_json:
        console_for(sys.stdout).print(StatusView(found.rows, found.accounts))
        return
    for event, listed in (("status", found.rows), ("account_clock", found.accounts)):
        for values in listed:
            click.echo(json.dumps({"event": event, **values}, sort_keys=True, default=str))


def again_and_again(work: job.Job, every_s: float, as_json: bool) -> Look:
    """Looks until somebody asks to stop; the last one. On a terminal one picture, elsewhere one after the other."""
    # Nothing is at work here that a stop would have to wait for.
    work.interrupts.on_first = lambda: None
    on_screen = sys.stdout.isatty() and not as_json
    live = Live(console=console_for(sys.stdout), auto_refresh=False) if on_screen else None
    with live or contextlib.nullcontext(), work.interrupts.installed():
        while True:
            found = look(work)
            if live is not None:
                live.update(StatusView(found.rows, found.accounts), refresh=True)
            else:
                show(found, as_json)
            sys.stdout.flush()
            try:
                work.interrupts.wait(every_s)
            except TenantFailure as failure:
                if failure.kind != "interrupted":
                    raise
                return found
