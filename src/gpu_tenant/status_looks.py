# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Looks at boxes, and how they are shown: once, or again and again."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from rich.live import Live

from gpu_tenant import exit_codes, fleet, outlet
from gpu_tenant import status as statuses
from gpu_tenant.hosts import BoxHost
from gpu_tenant.interrupts import Interrupts
from gpu_tenant.observation import Observation
from gpu_tenant.observe import Observer, refuse_blindness
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


@dataclass(frozen=True)
class Looks:
    """The boxes that are looked at. ``root`` is the folder of the workspace, where a watch leaves what it counted."""

    boxes: Sequence[BoxHost]
    project: str
    root: Path
    observer: Observer

    def again(self) -> dict[str, Observation]:
        """What the boxes say now, or said some seconds ago."""
        return self.observer.observe(each_alone=True, ready=True)

    def look(self, seen: Callable[[], Mapping[str, Observation]]) -> Look:
        """Look at all boxes; one whose account refuses the key is told beside the others.

        :param seen: waits for what the boxes say; our records are read before that.
        :raises TenantFailure: no box at all could be looked at, and waiting does not mend that.
        """
        known = fleet.read(self.boxes, self.project)
        sights = fleet.sights(self.root, self.project)
        told = seen()
        refuse_blindness(told.values())
        clocks = [client.provider_now() for client, _rows in self.observer.listings]
        now = next((moment for moment in clocks if moment is not None), None)
        rows = [
            statuses.row_of_many(
                host, told[host.name], known[host.required("tenant_state_dir")], sights.get(host.name), now
            )
            for host in self.boxes
        ]
        refused = [one.refused for one in told.values() if one.refused is not None]
        return Look(rows, fleet.account_clocks(fleet.telling_credit(self.observer.listings)), refused)


def show(found: Look, as_json: bool) -> None:
    if not as_json:
        console_for(sys.stdout).print(StatusView(found.rows, found.accounts))
        return
    for event, listed in (("status", found.rows), ("account_clock", found.accounts)):
        for values in listed:
            click.echo(json.dumps({"event": event, **values}, sort_keys=True, default=str))


def again_and_again(
    looks: Looks, first: Callable[[], Mapping[str, Observation]], every_s: float, as_json: bool
) -> Look:
    """Looks until somebody asks to stop, or nobody is left to read them; the last one.

    On a terminal one picture, elsewhere one after the other.
    """
    # Nothing is at work here that a stop would have to wait for.
    interrupts = Interrupts()
    on_screen = sys.stdout.isatty() and not as_json
    live = Live(console=console_for(sys.stdout), auto_refresh=False) if on_screen else None
    seen = first
    with live or contextlib.nullcontext(), interrupts.installed():
        while True:
            found = looks.look(seen)
            if live is not None:
                live.update(StatusView(found.rows, found.accounts), refresh=True)
            else:
                show(found, as_json)
            sys.stdout.flush()
            if outlet.is_gone(sys.stdout):
                return found
            try:
                interrupts.wait(every_s)
            except TenantFailure as failure:
                if failure.kind != "interrupted":
                    raise
                return found
            seen = looks.again
