# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The commands ``demo`` and ``rehearse``, which rent from a marketplace on this machine."""

from __future__ import annotations

from typing import Any

import click

from gpu_tenant import demo, job, rehearse
from gpu_tenant.cli_options import box_options, json_option, run_option


@click.command(name="demo")
@click.option("--keep", is_flag=True, help="Leave the box and the marketplace for a look.")
@click.option("--engine", type=click.Choice(["process", "podman"]), default="process", show_default=True)
@click.option("--workspace", default="", help="Folder of the demo [default: .tenant/demo].")
@json_option
@click.pass_context
def demo_command(ctx: click.Context, /, keep: bool, engine: str, workspace: str, as_json: bool) -> None:
    """Rent, lose, resume, verify and destroy a box on a marketplace on this machine. Costs nothing."""
    ctx.exit(demo.run(demo.DemoOptions(keep=keep, engine=engine, workspace=workspace, as_json=as_json)))


@click.command(name="rehearse")
@click.argument("script")
@box_options
@run_option
@click.option("--engine", type=click.Choice(["process", "podman"]), default="process", show_default=True)
@click.option("--drill", is_flag=True, help="Before training, prove on the box that the run goes on after a kill.")
@click.pass_context
def rehearse_command(ctx: click.Context, /, script: str, engine: str, drill: bool, **options: Any) -> None:
    """Play a fault SCRIPT against your own inventory and run, on a marketplace on this machine. Costs nothing.

    SCRIPT is preempted, lost-create, host-offline, or the path of a file of your own (docs/rehearsals.md).
    """
    ctx.exit(rehearse.run(script, job.JobOptions(**options), engine, drill))
