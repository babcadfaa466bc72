# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The command ``init``: a team's folder that ``gpu-tenant plan`` takes as it is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

from gpu_tenant import detect, scaffold
from gpu_tenant.cli_options import json_option


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("."))
@click.option("--project", default="", help="Goes into the label of every box [default: the folder's name].")
@click.option("--platform", default="vast", show_default=True, help="Where the first box is rented, or is.")
@click.option("--box", default="box-1", show_default=True, help="Name of the first box.")
@click.option("--script", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="[default: looked for]")
@click.option(
    "--price-cap",
    default=0.5,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="USD an hour, where the tool rents.",
)
@click.option("--run-only", is_flag=True, help="Write only the run spec, into a folder that has an inventory.")
@json_option
def init(
    folder: Path,
    project: str,
    platform: str,
    box: str,
    script: Path | None,
    price_cap: float,
    run_only: bool,
    as_json: bool,
) -> None:
    """Write an inventory, and a run spec where there is a training script, into FOLDER. Overwrites nothing.

    Keys, script, requirements and tracker are looked for on this machine; nothing is asked and nothing is run.
    """
    driver = scaffold.driver_of(platform)
    found = detect.detect(folder, os.environ, script, driver)
    wanted = scaffold.Wanted(project or found.project, platform, box, price_cap)
    contents = scaffold.run_files(folder, found, price_cap) if run_only else scaffold.files(folder, wanted, found)
    if not contents:
        names = ", ".join(detect.SCRIPTS)
        what, fix = f"there is no training script here ({names})", "name it with --script"
        raise TenantFailure("config", what, safe="nothing was written", fix=fix)
    written = scaffold.write(folder, contents)
    todo = next_steps(folder, wanted, driver, found, [path for path in contents if path.startswith(scaffold.RUNS)])
    if as_json:
        click.echo(json.dumps({"event": "init", "files": [str(path) for path in written], "next": todo}))
        return
    for path in written:
        click.echo(f"wrote {path}")
    for step in todo:
        click.echo(f"next: {step}")


def next_steps(
    folder: Path, wanted: scaffold.Wanted, driver: str, found: detect.Detected, runs: list[str]
) -> list[str]:
    """What only a person can do, and the command that shows what would happen."""
    steps = []
    if not found.ssh_key:
        steps.append("make a key pair for the boxes: ssh-keygen -t ed25519")
    if driver:
        steps += _account_steps(driver, found)
    else:
        steps.append(f"rent {wanted.box} and write where it is into inventory/hosts.yml")
    if not runs:
        steps.append(
            "when there is a training script: gpu-tenant init --run-only --script PATH, and name it with --run"
        )
    if runs and found.tracker == "wandb" and not found.wandb_key:
        steps.append("wandb is told to work offline: with WANDB_API_KEY set, name it among the secrets of the run")
    if driver:
        cap = f"inventory/group_vars/{wanted.platform}.yml"
        steps.append(f"see whether ${wanted.price_cap:.2f} an hour is what you consent to, in {cap}")
    go_there = "" if folder == Path() else f"cd {folder} && "
    steps.append(f"{go_there}gpu-tenant plan -l {wanted.platform}")
    return steps


def _account_steps(driver: str, found: detect.Detected) -> list[str]:
    variable = scaffold.key_variable(driver)
    if not variable:
        return [f"set {driver}_region, and credentials as for any AWS tool; docs/platforms/{driver}.md names the rest"]
    if found.api_key_file or os.environ.get(variable):
        return []
    place = f"{scaffold.usual_key_file(driver)} (named by {driver}_api_key_file)"
    return [f"put the account's API key into {place}, or into {variable}"]
