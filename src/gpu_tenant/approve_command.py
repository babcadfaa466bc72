# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The command ``approve``."""

from __future__ import annotations

import json
import sys

import click

from gpu_tenant import approve, approve_launch, approve_volume, completion, hosts
from gpu_tenant.cli_options import inventory_options, json_option


@click.command(name="approve")
@click.argument("verb")
@click.argument("box", shell_complete=completion.boxes)
@click.option("--approver", default="", help="Who consents.")
@click.option("--reason", required=True, help="Why, in a sentence.")
@click.option("--expires", default="1h", show_default=True, help="15m, 1h, 2d; 90d at most.")
@click.option("--standing", is_flag=True, help="For results that are not home yet: fires on complete receipts only.")
@click.option("--loss", is_flag=True, help="Break glass: shows what would be lost, and asks.")
@click.option("--loss-id", default="", help="The loss that was shown, where nobody can be asked.")
@click.option("--awx-approval", default=0, help="An approved workflow approval in AWX, by its number: it names who.")
@click.option(
    "--awx-workflow", default=0, help="The workflow job whose approval was given: for a job in that workflow."
)
@click.option("--generation", default=0, help="[default: the newest]")
@click.option("--volume", is_flag=True, help="BOX is a volume, as vast_volume names it; consent is to its loss.")
@click.option("--after", default="", help="With terminate-after: when RunPod shall end the pod by itself, such as 2d.")
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
    awx_workflow: int,
    generation: int,
    volume: bool,
    after: str,
    inventories: tuple[str, ...],
    extra_vars: tuple[str, ...],
    as_json: bool,
) -> None:
    """Consent to one VERB on one BOX; it is used once, expires, and is bound to the evidence.

    VERB is the platform's own word, or teardown for the one that ends the rental; before a pod of RunPod's is rented,
    terminate-after.
    """
    if standing and loss:
        raise click.UsageError("--standing and --loss exclude each other")
    if [bool(approver), bool(awx_approval), bool(awx_workflow)].count(True) != 1:
        raise click.UsageError("name who consents: --approver; or --awx-approval or --awx-workflow where AWX knows")
    host = hosts.resolve("all" if volume else box, inventories, extra_vars).boxes[0]
    request = approve.Request(
        verb, approver, reason, expires, standing, loss, loss_id, awx_approval, generation, awx_workflow
    )
    ask = click.prompt if sys.stdin.isatty() and not as_json else None
    left: list[str] = []
    if volume:
        given = approve_volume.answer(host, box, request, ask)
    elif verb == approve_launch.VERB:
        given = approve_launch.answer(host, request, after, ask)
    else:
        given, left = approve.answer(host, request, ask)
    if as_json:
        click.echo(json.dumps({"event": "approval", "not_pulled": left, **given}, sort_keys=True))
        return
    click.echo(approve.describe(given))
    for sentence in left:
        click.echo(sentence)
