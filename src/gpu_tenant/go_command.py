# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The commands ``go`` and ``account``: a run from beginning to end, and what it took."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

from gpu_tenant import account, completion, exit_codes, go, job
from gpu_tenant.cli_options import LEAST_POLL_S, Seconds, box_options
from gpu_tenant.progress import console_for


@click.command(name="go")
@click.argument("spec", shell_complete=completion.specs)
@box_options
@click.option("--approver", default="", help="Who consents to destroying the box once the results are home.")
@click.option("--standing-approval", is_flag=True, help="Write that consent down now, before the run.")
@click.option("--reason", default="", help="Why, for the approval.")
@click.option(
    "--pull-every-s",
    default=600.0,
    show_default=True,
    type=Seconds(min=0),
    help="Bring checkpoints home this often; 0: never.",
)
@click.option(
    "--poll-s",
    default=2.0,
    show_default=True,
    type=Seconds(min=LEAST_POLL_S),
    help="Shortest time between two looks.",
)
@click.option("--drill", is_flag=True, help="Before training, prove on the box that the run goes on after a kill.")
@click.pass_context
def go_command(
    ctx: click.Context,
    /,
    spec: str,
    approver: str,
    standing_approval: bool,
    reason: str,
    drill: bool,
    pull_every_s: float,
    poll_s: float,
    **options: Any,
) -> None:
    """Train the run SPEC to its end and bring it home, whatever happens to the boxes."""
    if standing_approval and not approver:
        raise click.UsageError("--standing-approval needs --approver: an approval has a name on it")
    with job.opened(job.JobOptions(run=spec, **options), spec_required=True, purpose="gpu-tenant go") as work:
        settings = go.GoOptions(
            pull_every_s=pull_every_s,
            poll_s=poll_s,
            deadline_s=float(work.spec["deadline_s"]),
            approver=approver,
            reason=reason,
            standing=standing_approval,
            drill=drill,
        )
        driver = go.Go(work.runner, work.observer, work.spec, settings, work.progress, work.history)
        work.leaving = lambda: work.look_again([driver.box.name, *driver.left_behind])
        result = driver.run()
        for step in result.next_steps:
            work.progress.emit("note", f"to end it: {step}", result.box)
    with_account(work, driver.box.name, bool(options["as_json"]), ctx)


def with_account(work: job.Job, box: str, as_json: bool, ctx: click.Context) -> None:
    """Draw up the account of the job's run, show it, and leave with 0 only if all of it was verified."""
    host = next(each for each in work.inventory.boxes if each.name == box)
    store = StateStore(host.required("tenant_state_dir"))
    client = work.observer.client(box) if host.text("platform_driver") == "vast" else None
    drawn = account.draw_up(store, work.project, work.spec, work.history, client)
    if as_json:
        click.echo(json.dumps({"event": "account", **drawn.as_dict()}, sort_keys=True, default=str))
    else:
        account.show(drawn, console_for(sys.stdout))
    ctx.exit(exit_codes.DONE if drawn.verified else exit_codes.of_kind("evidence_missing"))


@click.command(name="account")
@click.argument("spec", shell_complete=completion.specs)
@box_options
@click.pass_context
def account_command(ctx: click.Context, /, spec: str, **options: Any) -> None:
    """Verify the results of the run SPEC again and tell what it took: boxes, interruptions, evidence, money."""
    with job.opened(job.JobOptions(run=spec, **options), spec_required=True, locked=False) as work:
        with_account(work, work.inventory.names[0], bool(options["as_json"]), ctx)
