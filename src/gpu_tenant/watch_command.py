# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The command ``watch``."""

from __future__ import annotations

from typing import Any

import click

from gpu_tenant import job, steady_clock, watch
from gpu_tenant.cli_options import LEAST_POLL_S, Seconds, box_options, run_option


@click.command(name="watch")
@box_options
@run_option
@click.option("--once", is_flag=True, help="One round and its acts, then an exit code: for cron and AWX.")
@click.option(
    "--poll-s",
    default=watch.DEFAULT_POLL_S,
    show_default=True,
    type=Seconds(min=LEAST_POLL_S),
    help="Seconds between two rounds.",
)
@click.option(
    "--rpo-s",
    default=None,
    type=Seconds(min=0),
    help="Most work at risk, in seconds; 0: never pull [default: tenant_rpo_s, else 600].",
)
@click.option("--webhook", default="", help="Alerts are posted here, one JSON object each.")
@click.option("--metrics-file", default="", help="A textfile for Prometheus' node_exporter, replaced every round.")
@click.pass_context
def watch_command(
    ctx: click.Context,
    /,
    once: bool,
    poll_s: float,
    rpo_s: float | None,
    webhook: str,
    metrics_file: str,
    **options: Any,
) -> None:
    """Look after boxes: recover what is lost, bring checkpoints home, harvest what is done. Destroys nothing.

    Each box works on the run that tenant_run names for it.
    """
    if rpo_s is not None:
        options["extra_vars"] = (*options["extra_vars"], f"tenant_rpo_s={rpo_s}")
    settings = watch.WatchOptions(poll_s=poll_s, once=once, webhook=webhook, metrics_file=metrics_file)
    with job.opened(job.JobOptions(**options)) as work:
        watched = watch.group(work.inventory.boxes, steady_clock.of_process(), work.inventory.declared)
        # What each act is allowed to touch is the business of a lease, which the playbooks take themselves.
        watching = watch.Watch(work.runner, work.observer, watched, settings, work.progress)
        work.leaving = lambda: watch.left_as(watched)
        code = watching.run()
        # One round may end as if all were done, when its acts were told to stop.
        work.interrupts.check()
    ctx.exit(code)
