# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The command ``status``: the boxes of a limit as they are, once or again and again. Changes nothing.

What is waited for is waited for together: the program is read while Ansible reads the inventory, if it has to, and
while the boxes answer.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from gpu_tenant import hosts
from gpu_tenant.cli_options import Seconds, box_options

# One answer of the provider for all boxes costs a request; more often than this it would refuse some.
LEAST_EVERY_S = 2.0


@click.command()
@box_options
@click.option("--live", is_flag=True, help="Look again and again, until Ctrl-C; boxes train on by themselves.")
@click.option(
    "--every",
    "every_s",
    default=10.0,
    show_default=True,
    type=Seconds(min=LEAST_EVERY_S),
    help="Seconds between two looks of --live.",
)
@click.pass_context
def status(ctx: click.Context, /, live: bool, every_s: float, **options: Any) -> None:
    """Show what each box does, costs and risks: verdict, progress, GPU, disk, money, clocks. Changes nothing."""
    with ThreadPoolExecutor(max_workers=1) as beside, contextlib.ExitStack() as stack:
        asked = beside.submit(hosts.resolve, options["limit"], options["inventories"], options["extra_vars"])
        from gpu_tenant import observe, workspace

        inventory = asked.result()
        project = inventory.project
        place = workspace.Workspace(options["workspace"] or Path.cwd() / workspace.DEFAULT_FOLDER)
        # Where each box is asked once, a connection that is kept costs more than it saves.
        sockets = str(stack.enter_context(workspace.Session()).folder) if live else ""
        observer = observe.Observer(inventory.boxes, sockets)
        observer.on_skew = lambda text: click.echo(f"gpu-tenant: {text}", err=True)
        first = beside.submit(observer.observe, each_alone=True, ready=True)
        from gpu_tenant import status_looks

        looks = status_looks.Looks(inventory.boxes, project, place.root, observer)
        as_json = bool(options["as_json"])
        if live:
            found = status_looks.again_and_again(looks, first.result, every_s, as_json)
        else:
            found = looks.look(first.result)
            status_looks.show(found, as_json)
    ctx.exit(found.exit_code)
