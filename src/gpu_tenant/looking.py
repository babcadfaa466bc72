# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The commands ``ssh``, ``logs`` and ``audit``: one box from near, and all accounts from afar."""

from __future__ import annotations

import json
import sys

import click
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

from gpu_tenant import audit, completion, exit_codes, hosts, login, logs, observe, outlet
from gpu_tenant.cli_options import inventory_options, json_option
from gpu_tenant.interrupts import Interrupts
from gpu_tenant.progress import console_for
from gpu_tenant.workspace import Session

_POLL_S = 1.0
_ALL = "all"


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@inventory_options
@click.argument("box", shell_complete=completion.boxes)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def ssh(inventories: tuple[str, ...], extra_vars: tuple[str, ...], box: str, words: tuple[str, ...]) -> None:
    """Log in to BOX by its pinned key, or run WORDS there. Options come before BOX."""
    host = login.one_box(hosts.resolve(box, inventories, extra_vars).boxes, box)
    observer = observe.Observer([host], "")
    login.become(login.command(observer, host, words, terminal=not words and sys.stdin.isatty()))


@click.command(name="logs")
@click.argument("box", shell_complete=completion.boxes)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended; Ctrl-C ends only the looking.")
@click.option("-n", "--lines", default=50, show_default=True, type=click.IntRange(0, 100_000), help="From the end.")
@click.option(
    "--run",
    "run_id",
    default="",
    help="Id of the run [default: the first that the box knows].",
    shell_complete=completion.run_ids,
)
@click.option("--cell", default="", help="[default: the one at work, else the last]")
@inventory_options
@json_option
def logs_of(
    box: str,
    follow: bool,
    lines: int,
    run_id: str,
    cell: str,
    inventories: tuple[str, ...],
    extra_vars: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show what the training on BOX wrote; nothing is changed there."""
    host = login.one_box(hosts.resolve(box, inventories, extra_vars).boxes, box)
    with Session() as session:
        observer = observe.Observer([host], str(session.folder))
        run, chosen = logs.which(logs.answered(observer.observe(run_id)[host.name]), host.name, cell)
        log = logs.CellLog(observer, host, str(session.folder), run, chosen)
        piece = log.tail(lines)
        _show(piece, as_json)
        if follow:
            _follow(log, piece, observer, host.name, as_json)


def _follow(log: logs.CellLog, piece: logs.Piece, observer: observe.Observer, name: str, as_json: bool) -> None:
    interrupts = Interrupts()

    def state() -> str:
        return observer.observe(log.run_id)[name].run_state

    def trouble(text: str) -> None:
        click.echo(f"gpu-tenant: {name}: {text}", err=True)

    with interrupts.installed():
        try:
            for each in logs.follow(log, piece, state, lambda: interrupts.wait(_POLL_S), trouble):
                _show(each, as_json)
                if outlet.is_gone(sys.stdout):
                    return
                interrupts.check()
        except TenantFailure as failure:
            if failure.kind != "interrupted":
                raise


def _show(piece: logs.Piece, as_json: bool) -> None:
    if as_json:
        told = {"event": "log", "cell": piece.cell, "attempt": piece.attempt, "text": piece.text}
        click.echo(json.dumps(told))
    else:
        click.echo(logs.plain(piece.text), nl=False)


@click.command(name="audit")
@click.option("--park", is_flag=True, help="Stop what is ours and undeclared; its disk stays and bills.")
@inventory_options
@json_option
@click.pass_context
def audit_accounts(
    ctx: click.Context, /, park: bool, inventories: tuple[str, ...], extra_vars: tuple[str, ...], as_json: bool
) -> None:
    """Show all that bills on every account of the inventory, and whose it is. Changes nothing without --park."""
    inventory = hosts.resolve(_ALL, inventories, extra_vars)
    observer = observe.Observer(inventory.boxes, "")
    parked, failures = audit.park_orphans(observer, inventory.boxes) if park else ([], [])
    seen = audit.audit(observer, inventory.boxes)
    if as_json:
        for each in seen.findings:
            click.echo(json.dumps({"event": "audit", **each.as_dict()}))
        told = {"undeclared": len(seen.undeclared()), "parked": [each.provider_id for each in parked]}
        click.echo(json.dumps({"event": "result", "msg": seen.words(), "unseen": seen.unseen, **told}))
    else:
        if seen.findings:
            console_for(sys.stdout).print(audit.table(seen.findings))
        for sentence in (*seen.unseen, *(f"parked: {each.provider_id} {each.name}" for each in parked), seen.words()):
            click.echo(sentence)
    for failure in failures:
        click.echo(f"gpu-tenant: {failure}", err=True)
    ctx.exit(exit_codes.of_kinds([failure.kind for failure in failures]))
