# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The verbs that are the roles' names, and ``plan``: each runs one playbook."""

from __future__ import annotations

import os
from typing import Any

import click
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import load_run_spec

from gpu_tenant import candidates, cluster_jobs, exit_codes, job, status_looks, status_view
from gpu_tenant.cli_options import box_options, run_option
from gpu_tenant.job_view import is_job
from gpu_tenant.playbooks import Outcome

_VERBS = {
    "provision": "Rent or start boxes, pin their keys, probe them.",
    "mirrors": "Choose the sources that are fastest from a box.",
    "deploy": "Bring code, inputs, secrets and the supervisor to the boxes.",
    "train": "Rent, deploy and start training; returns once it is proven to live.",
    "harvest": "Bring results home, verify them, write receipts, park the boxes.",
    "teardown": "Destroy boxes, if the evidence is home and somebody approved.",
}


def _verb(verb: str, what: str) -> click.Command:
    @click.command(name=verb, help=what)
    @box_options
    @run_option
    @click.option("--check", is_flag=True, help="Say what would be done; change nothing.")
    @click.pass_context
    def command(ctx: click.Context, /, check: bool, **options: Any) -> None:
        with job.opened(job.JobOptions(**options)) as work:
            ctx.exit(conclude(work, work.run_playbook(verb, check=check)))

    return command


VERBS = {verb: _verb(verb, what) for verb, what in _VERBS.items()}


def conclude(work: job.Job, outcome: Outcome) -> int:
    """Say how a playbook ended, box by box; the exit code."""
    work.interrupts.on_first = lambda: None
    for failure in outcome.failures:
        told = TenantFailure(failure.kind or "config", failure.what, safe=failure.safe, fix=failure.fix)
        code = exit_codes.of_kind(failure.kind)
        work.progress.emit("failure", str(told), failure.box, kind=failure.kind, exit_code=code)
    if outcome.ok:
        changed = sorted({result.box for result in outcome.results if result.changed})
        text = f"{outcome.playbook} is done; " + (f"changed: {', '.join(changed)}" if changed else "nothing to change")
        work.progress.emit("result", text, exit_code=exit_codes.DONE)
    return outcome.exit_code


@click.command(name="plan")
@box_options
@run_option
@click.pass_context
def plan(ctx: click.Context, /, **options: Any) -> None:
    """Say what would be rented and changed, at what price; change nothing."""
    with job.opened(job.JobOptions(**options)) as work:
        say_clocks(work)
        kinds = [*say_candidates(work), *say_jobs(work)]
        boxes = [host.name for host in work.inventory.boxes if not is_job(host)]
        code = conclude(work, work.run_playbook("site", check=True, names=boxes)) if boxes else exit_codes.DONE
        ctx.exit(code or exit_codes.of_kinds(kinds))


def say_candidates(work: job.Job) -> list[str]:
    """In which order the boxes would be tried for each run that has candidates. The kinds of what would be refused."""
    paths = {os.path.expanduser(box.text("tenant_run")) for box in work.inventory.boxes}
    failed = []
    for path in [""] if work.spec else sorted(filter(os.path.isfile, paths)):
        try:
            spec = work.spec or load_run_spec(path)
            boxes = candidates.in_spec_order(work.inventory.boxes, spec, work.inventory.declared)
        except TenantFailure as failure:
            code = exit_codes.of_kind(failure.kind)
            work.progress.emit("failure", str(failure), kind=failure.kind, exit_code=code)
            failed.append(failure.kind)
            continue
        if spec["candidates"]:
            order = ", ".join(box.name for box in boxes)
            work.progress.emit("note", f"run {spec['id']} would be tried in this order: {order}")
    return failed


def say_jobs(work: job.Job) -> list[str]:
    """What would be applied where a run is a Job and not a box: no playbook has anything to do there. The kinds of what
    failed."""
    failed = []
    for host in filter(is_job, work.inventory.boxes):
        try:
            for text in cluster_jobs.say_first(host):
                work.progress.emit("note", text, host.name)
            for text in cluster_jobs.plan(host, work.spec):
                work.progress.emit("result", text, host.name)
        except TenantFailure as failure:
            code = exit_codes.of_kind(failure.kind)
            work.progress.emit("failure", str(failure), host.name, kind=failure.kind, exit_code=code)
            failed.append(failure.kind)
    return failed


def say_clocks(work: job.Job) -> None:
    """Before all else, what runs down on the boxes that are there; the playbook says the clocks of their platforms."""
    try:
        looks = status_looks.Looks(work.inventory.boxes, work.project, work.workspace.root, work.observer)
        found = looks.look(looks.again)
    except TenantFailure as failure:
        work.progress.emit("warning", f"what runs down on boxes that are there is not known: {failure}")
        return
    told = [(values["box"], status_view.clock_text(one), one) for values in found.rows for one in values["countdowns"]]
    told += [("", status_view.account_text(account), account) for account in found.accounts]
    for box, text, clock in told:
        kind = "warning" if clock["alarm"] else "note"
        work.progress.emit(kind, f"danger clock: {text}", box, clock=clock["effect"], left_s=clock["left_s"])
