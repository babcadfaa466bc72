# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The commands ``sweep split``, ``sweep check`` and ``sweep move``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click
from ansible_collections.tenant.gpu.plugins.module_utils import sweeps
from ansible_collections.tenant.gpu.plugins.module_utils.box.wording import duration
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import load_run_spec
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

from gpu_tenant import completion, exit_codes, hosts, sweep
from gpu_tenant.cli_options import box_options

_spec = click.argument("spec", shell_complete=completion.specs)


@click.group(name="sweep")
def sweep_group() -> None:
    """Share the cells of a run out among boxes, and see that all of them come home."""


def _place(options: Mapping[str, Any]) -> tuple[StateStore, str, Sequence[hosts.BoxHost]]:
    boxes = hosts.resolve(options["limit"], options["inventories"], options["extra_vars"])
    folders = {box.required("tenant_state_dir") for box in boxes.boxes}
    if len(folders) > 1:
        what = f"the boxes have several state stores: {', '.join(sorted(folders))}"
        raise TenantFailure("config", what, safe=sweep.SAFE, fix="share a run out among boxes of one state store")
    return StateStore(folders.pop()), boxes.project, boxes.boxes


def _weights(given: Sequence[str]) -> dict[str, float]:
    found = {}
    for text in given:
        box, equals, speed = text.partition("=")
        try:
            found[box] = float(speed)
        except ValueError:
            equals = ""
        if not box or not equals:
            raise click.BadParameter(f"{text!r}: write BOX=SPEED, for example box-2=1.5")
    return found


def _known(store: StateStore, project: str, spec_path: str) -> dict[str, Any]:
    sweep_id = str(load_run_spec(spec_path)["id"])
    found = sweeps.read(store, project, sweep_id)
    if found is None:
        fix = f"gpu-tenant sweep split {spec_path} -l BOXES"
        raise TenantFailure("config", f"run {sweep_id} is no sweep yet", safe=sweep.SAFE, fix=fix)
    return found


@sweep_group.command(name="split")
@_spec
@click.option("--weight", "weights", multiple=True, help="BOX=SPEED beside the others; may be repeated.")
@click.option("--check", is_flag=True, help="Say how it would be shared out; write nothing.")
@box_options
def split_command(spec: str, weights: tuple[str, ...], check: bool, **options: Any) -> None:
    """Share the cells of the run SPEC out among the boxes, level by what they cost when they were last measured."""
    store, project, boxes = _place(options)
    whole = load_run_spec(spec)
    if sweeps.read(store, project, whole["id"]) is not None:
        what, fix = (
            f"run {whole['id']} is shared out already",
            "move the cells of a lost box with gpu-tenant sweep move",
        )
        raise TenantFailure("config", what, safe=sweep.SAFE, fix=fix)
    costs = sweep.measured(store, project, whole["id"], [str(cell["id"]) for cell in whole["cells"]])
    found = sweep.split(spec, [box.name for box in boxes], costs, _weights(weights))
    if not check:
        # The gate must know of the sweep before any box of it can have something to lose.
        sweeps.write(store, project, found)
        sweep.write_specs(spec, found)
    _tell(spec, found, bool(options["as_json"]))


@sweep_group.command(name="check")
@_spec
@box_options
@click.pass_context
def check_command(ctx: click.Context, /, spec: str, **options: Any) -> None:
    """Reconcile the run SPEC: is each cell home exactly once, and sound? No box of it may be destroyed before."""
    store, project, _boxes = _place(options)
    found = _known(store, project, spec)
    homes, problems = sweep.state_of(store, project, found)
    home = sweep.cells_home(homes) & set(found["cells"])
    text = f"{len(home)} of {len(found['cells'])} cells are home; " + (
        f"{len(problems)} problems" if problems else "the sweep is whole"
    )
    if options["as_json"]:
        told = [vars(problem) for problem in problems]
        click.echo(sweep.as_json("sweep", cells=sorted(found["cells"]), home=sorted(home), problems=told))
    else:
        for problem in problems:
            click.echo(str(problem))
        click.echo(text)
    ctx.exit(exit_codes.of_kind("evidence_missing") if problems else exit_codes.DONE)


@sweep_group.command(name="move")
@_spec
@click.argument("box", shell_complete=completion.boxes)
@click.option("--check", is_flag=True, help="Say what would be moved; write nothing.")
@box_options
def move_command(spec: str, box: str, check: bool, **options: Any) -> None:
    """Give BOX up: those of its cells that are not home go to the boxes of -l, as new shares."""
    store, project, boxes = _place(options)
    before = _known(store, project, spec)
    homes, _problems = sweep.state_of(store, project, before)
    found = sweep.move(before, box, sweep.cells_home(homes), [each.name for each in boxes])
    if not check:
        sweeps.write(store, project, found)
        sweep.write_specs(spec, found)
    _tell(spec, found, bool(options["as_json"]))


def _tell(spec: str, found: Mapping[str, Any], as_json: bool) -> None:
    for run_id, share in sorted(found["shares"].items()):
        path = str(sweep.spec_path_of(spec, run_id, found["sweep_id"]))
        if as_json:
            click.echo(sweep.as_json("share", run=run_id, spec=path, **share))
            continue
        state = " (given up)" if share.get("given_up") else ""
        span = f", about {duration(share['expected_s'])}" if share.get("expected_s") else ""
        click.echo(f"{share['box']}{state}: {len(share['cells'])} cells{span}: {', '.join(share['cells']) or 'none'}")
        if not share.get("given_up"):
            click.echo(f"    gpu-tenant go {path} -l {share['box']}")
