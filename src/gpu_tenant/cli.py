# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The command line. Every verb takes ``--json``, ends with a stable exit code, and says what is wrong in one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import UnsafeName
from ansible_collections.tenant.gpu.plugins.module_utils.box.records import RecordError
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

from gpu_tenant import (
    __version__,
    account,
    approve,
    approve_volume,
    exit_codes,
    go,
    hosts,
    job,
    looking,
    scaffold,
    status,
    watch,
)
from gpu_tenant.cli_options import JSON_KEY, box_options, inventory_options, json_option, run_option
from gpu_tenant.playbooks import Outcome
from gpu_tenant.progress import console_for


class TenantGroup(click.Group):
    """Turns expected failures into one clear line and their exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TenantFailure as failure:
            ctx.exit(report(failure, bool(ctx.meta.get(JSON_KEY))))
        except (RecordError, UnsafeName) as error:
            ctx.exit(report(TenantFailure("config", str(error)), bool(ctx.meta.get(JSON_KEY))))


def report(failure: TenantFailure, as_json: bool) -> int:
    """Say a failure, on stdout as JSON or on stderr as text; its exit code."""
    if as_json:
        click.echo(json.dumps({**failure.as_result(), "event": "failure", "exit_code": failure.exit_code}))
    else:
        click.echo(f"gpu-tenant: {failure}", err=True)
    return failure.exit_code


@click.group(cls=TenantGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gpu-tenant")
def cli() -> None:
    """Rent GPU boxes, train resumably, bring verified results home, and only then destroy."""


# --- the roles, one verb each ---------------------------------------------------------------------------------------

_VERBS = {
    "provision": "Rent or start boxes, pin their keys, probe them.",
    "mirrors": "Set mirrors where a platform needs them.",
    "deploy": "Bring code, inputs, secrets and the supervisor to the boxes.",
    "train": "Rent, deploy and start training; returns once it is proven to live.",
    "harvest": "Bring results home, verify them, write receipts, park the boxes.",
    "teardown": "Destroy boxes, if the evidence is home and somebody approved.",
}


def _add_verb(verb: str, what: str) -> None:
    @cli.command(name=verb, help=what)
    @box_options
    @run_option
    @click.option("--check", is_flag=True, help="Say what would be done; change nothing.")
    @click.pass_context
    def command(ctx: click.Context, /, check: bool, **options: Any) -> None:
        with job.opened(job.JobOptions(**options)) as work:
            ctx.exit(conclude(work, work.run_playbook(verb, check=check)))


for _verb, _what in _VERBS.items():
    _add_verb(_verb, _what)


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


@cli.command()
@box_options
@run_option
@click.pass_context
def plan(ctx: click.Context, /, **options: Any) -> None:
    """Say what would be rented and changed, at what price; change nothing."""
    with job.opened(job.JobOptions(**options)) as work:
        ctx.exit(conclude(work, work.run_playbook("site", check=True)))


# --- go -------------------------------------------------------------------------------------------------------------


@cli.command(name="go")
@click.argument("spec")
@box_options
@click.option("--approver", default="", help="Who consents to destroying the box once the results are home.")
@click.option("--standing-approval", is_flag=True, help="Write that consent down now, before the run.")
@click.option("--reason", default="", help="Why, for the approval.")
@click.option("--pull-every-s", default=600.0, show_default=True, help="Bring checkpoints home this often; 0: never.")
@click.option("--poll-s", default=2.0, show_default=True, help="Shortest time between two looks.")
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
        try:
            result = driver.run()
        except TenantFailure as failure:
            say_what_is_left(work, driver.box.name, failure)
            raise
        for step in result.next_steps:
            work.progress.emit("note", f"to end it: {step}", result.box)
    with_account(work, driver.box.name, bool(options["as_json"]), ctx)


@cli.command(name="watch")
@box_options
@run_option
@click.option("--once", is_flag=True, help="One round and its acts, then an exit code: for cron and AWX.")
@click.option("--poll-s", default=watch.DEFAULT_POLL_S, show_default=True, help="Seconds between two rounds.")
@click.option(
    "--rpo-s", default=None, type=float, help="Most work at risk, in seconds [default: tenant_rpo_s, else 600]."
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
        watched = watch.group(work.inventory.boxes)
        # What each act is allowed to touch is the business of a lease, which the playbooks take themselves.
        watching = watch.Watch(work.runner, work.observer, watched, settings, work.progress)
        try:
            code = watching.run()
        except TenantFailure as failure:
            for box, sentence in watch.left_as(watched) if failure.kind == "interrupted" else []:
                work.progress.emit("result", sentence, box)
            raise
    ctx.exit(code)


def say_what_is_left(work: job.Job, box: str, failure: TenantFailure) -> None:
    """After an interruption: how the box was left, as far as anybody can see."""
    if failure.kind != "interrupted":
        return
    try:
        told = go.left_as([box], work.observer, str(work.spec.get("id", "")))
    except TenantFailure as unseen:
        told = [f"{box} could not be looked at: {unseen.what}"]
    for sentence in told:
        work.progress.emit("result", sentence, box)


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


@cli.command(name="account")
@click.argument("spec")
@box_options
@click.pass_context
def account_command(ctx: click.Context, /, spec: str, **options: Any) -> None:
    """Verify the results of the run SPEC again and tell what it took: boxes, interruptions, evidence, money."""
    with job.opened(job.JobOptions(run=spec, **options), spec_required=True, locked=False) as work:
        with_account(work, work.inventory.names[0], bool(options["as_json"]), ctx)


# --- looking and consenting -----------------------------------------------------------------------------------------


@cli.command(name="status")
@box_options
@click.pass_context
def status_command(ctx: click.Context, /, **options: Any) -> None:
    """One line per box: provider, run, progress, price, danger clocks. Changes nothing."""
    with job.opened(job.JobOptions(**options), locked=False) as work:
        seen = work.observer.observe()
        rows = [status.row(host, seen[host.name]) for host in work.inventory.boxes]
    if options["as_json"]:
        for values in rows:
            click.echo(json.dumps({"event": "status", **values}, sort_keys=True, default=str))
    else:
        console_for(sys.stdout).print(status.table(rows))
    lost = [values for values in rows if "unreachable" in (values["provider"], values["contact"])]
    ctx.exit(exit_codes.of_kind("unreachable") if lost else exit_codes.DONE)


for _look in (looking.ssh, looking.logs_of, looking.audit_accounts):
    cli.add_command(_look)


@cli.command(name="report")
@box_options
@click.option("--database", default="", help="URL of the index [default: GPU_TENANT_DATABASE_URL, else a file].")
@click.pass_context
def report_command(ctx: click.Context, /, database: str, **options: Any) -> None:
    """What the boxes have cost: each machine, and sums by run, project and platform. Unknown is said, never 0."""
    from gpu_tenant import report as reports

    with job.opened(job.JobOptions(**options), locked=False) as work:
        told = reports.draw_up(work.project, work.inventory.boxes, work.observer.client, database)
    if options["as_json"]:
        click.echo(json.dumps({"event": "report", **told}, sort_keys=True))
    else:
        console_for(sys.stdout).print(reports.render(told))


@cli.command(name="approve")
@click.argument("verb")
@click.argument("box")
@click.option("--approver", default="", help="Who consents.")
@click.option("--reason", required=True, help="Why, in a sentence.")
@click.option("--expires", default="1h", show_default=True, help="15m, 1h, 2d.")
@click.option("--standing", is_flag=True, help="For results that are not home yet: fires on complete receipts only.")
@click.option("--loss", is_flag=True, help="Break glass: shows what would be lost, and asks.")
@click.option("--loss-id", default="", help="The loss that was shown, where nobody can be asked.")
@click.option("--awx-approval", default=0, help="An approved workflow approval in AWX, by its number: it names who.")
@click.option("--generation", default=0, help="[default: the newest]")
@click.option("--volume", is_flag=True, help="BOX is a volume, as vast_volume names it; consent is to its loss.")
@inventory_options
@json_option
def approve_command(
    verb: str,
    box: str,
    approver: str,
    reason: str,
    expires: str,
    standing: bool,
    loss: bool,
    loss_id: str,
    awx_approval: int,
    generation: int,
    volume: bool,
    inventories: tuple[str, ...],
    extra_vars: tuple[str, ...],
    as_json: bool,
) -> None:
    """Consent to one VERB on one BOX; it is used once, expires, and is bound to the evidence.

    VERB is the platform's own word, or teardown for the one that ends the rental.
    """
    if standing and loss:
        raise click.UsageError("--standing and --loss exclude each other")
    if bool(approver) == bool(awx_approval):
        raise click.UsageError("name who consents: --approver, or --awx-approval where AWX knows")
    host = hosts.resolve("all" if volume else box, inventories, extra_vars).boxes[0]
    request = approve.Request(verb, approver, reason, expires, standing, loss, loss_id, awx_approval, generation)
    ask = click.prompt if sys.stdin.isatty() and not as_json else None
    given, left = (approve_volume.answer(host, box, request, ask), []) if volume else approve.answer(host, request, ask)
    if as_json:
        click.echo(json.dumps({"event": "approval", "not_pulled": left, **given}, sort_keys=True))
        return
    click.echo(approve.describe(given))
    for sentence in left:
        click.echo(sentence)


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--project", required=True, help="Goes into the label of every box.")
@click.option("--platform", default="vast", show_default=True, help="Where the first box is rented.")
@click.option("--box", default="box-1", show_default=True, help="Name of the first box.")
@json_option
def init(folder: Path, project: str, platform: str, box: str, as_json: bool) -> None:
    """Write a small inventory into FOLDER to start from. Overwrites nothing."""
    written = scaffold.write(folder, scaffold.files(project, platform, box))
    if as_json:
        click.echo(json.dumps({"event": "init", "files": [str(path) for path in written]}))
        return
    for path in written:
        click.echo(f"wrote {path}")
    click.echo(f"next: set the price cap in inventory/group_vars/{platform}.yml, then: gpu-tenant plan -l {platform}")


# --- rehearsing -----------------------------------------------------------------------------------------------------


@cli.command(name="demo")
@click.option("--keep", is_flag=True, help="Leave the box and the marketplace for a look.")
@click.option("--engine", type=click.Choice(["process", "podman"]), default="process", show_default=True)
@click.option("--workspace", default="", help="Folder of the demo [default: .tenant/demo].")
@json_option
@click.pass_context
def demo_command(ctx: click.Context, /, keep: bool, engine: str, workspace: str, as_json: bool) -> None:
    """Rent, lose, resume, verify and destroy a box on a marketplace on this machine. Costs nothing."""
    from gpu_tenant import demo

    ctx.exit(demo.run(demo.DemoOptions(keep=keep, engine=engine, workspace=workspace, as_json=as_json)))


@cli.command(name="rehearse")
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
    from gpu_tenant import rehearse

    ctx.exit(rehearse.run(script, job.JobOptions(**options), engine, drill))


def _add_marketplace() -> None:
    from gpu_tenant.marketplace.commands import marketplace_group

    cli.add_command(marketplace_group)


def main() -> None:
    _add_marketplace()
    cli.main(prog_name="gpu-tenant")


if __name__ == "__main__":
    main()
