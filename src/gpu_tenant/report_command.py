# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The command ``report``."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from gpu_tenant import job, output_file, report, report_html
from gpu_tenant.cli_options import box_options
from gpu_tenant.progress import console_for


@click.command(name="report")
@box_options
@click.option("--database", default="", help="URL of the index [default: GPU_TENANT_DATABASE_URL, else a file].")
@click.option("--html", default="", help="Write the whole report into this one file, drawings included.")
def report_command(database: str, html: str, **options: Any) -> None:
    """What the boxes have cost: each machine, and sums by run, project and platform. Unknown is said, never 0.

    With --html also what happened to them, how they learned, and what came home.
    """
    with job.opened(job.JobOptions(**options), locked=False) as work:
        history = work.workspace.histories(work.project)
        told = report.draw_up(work.project, work.inventory.boxes, work.observer.client, database, history)
    if html:
        output_file.write(html, report_html.page(told))
    if options["as_json"]:
        click.echo(json.dumps({"event": "report", **told}, sort_keys=True))
    else:
        console_for(sys.stdout).print(report.render(told))
