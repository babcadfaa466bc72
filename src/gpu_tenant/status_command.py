# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The command ``status``: the boxes of a limit as they are, once or again and again. Changes nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click

from gpu_tenant import hosts
from gpu_tenant.cli_options import box_options

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
    type=click.FloatRange(min=LEAST_EVERY_S),
    help="Seconds between two looks of --live.",
)
@click.pass_context
def status(ctx: click.Context, /, live: bool, every_s: float, **options: Any) -> None:
    """Show what each box does, costs and risks: verdict, progress, GPU, disk, money, clocks. Changes nothing."""
    with ThreadPoolExecutor(max_workers=1) as beside:
        asked = beside.submit(hosts.resolve, options["limit"], options["inventories"], options["extra_vars"])
        # Read while Ansible reads the inventory in a process of its own: each takes as long as the other.
        from gpu_tenant import job, status_looks

        inventory = asked.result()
    with job.opened(job.JobOptions(**options), locked=False, inventory=inventory, pooled=live) as work:
        as_json = bool(options["as_json"])
        if live:
            found = status_looks.again_and_again(work, every_s, as_json)
        else:
            found = status_looks.look(work)
            status_looks.show(found, as_json)
    ctx.exit(found.exit_code)
