# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant marketplace``: the command line of the marketplace."""

from __future__ import annotations

import json
import logging
import secrets
import signal
import sys
from pathlib import Path
from typing import NoReturn

import click
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

from .config import ENGINES, MarketplaceConfig, default_state_directory
from .dialects import Dialect, dialect_in
from .faults import NO_FAULTS, read_script
from .offers import CATALOGUE_SIZE, REHEARSAL_4090


def connections_in(given: tuple[str, ...]) -> tuple[tuple[str, Path], ...]:
    """``NAME=FOLDER`` texts as pairs. click.BadParameter for a folder that is not there."""
    pairs = []
    for text in given:
        name, equals, folder = text.partition("=")
        if not equals or not name or not Path(folder).is_dir():
            raise click.BadParameter(f"{text!r} is not NAME=FOLDER with a folder that exists")
        pairs.append((name, Path(folder).absolute()))
    return tuple(pairs)


def dialect_of(given: tuple[str, ...]) -> Dialect:
    """``NAME=VALUE`` texts as a dialect. click.BadParameter for one that there is not."""
    try:
        return dialect_in(given)
    except ValueError as reason:
        raise click.BadParameter(str(reason)) from reason


@click.group(name="marketplace", help="A local market: the REST of vast.ai, RunPod and Lambda, and real boxes.")
def marketplace_group() -> None:
    return


@marketplace_group.command(name="serve", help="Serve the market until Ctrl-C, which ends the processes of every box.")
@click.option("--port", type=click.IntRange(0, 65535), default=8383, show_default=True, help="0 takes any free port.")
@click.option(
    "--api-key",
    envvar="GPU_TENANT_MARKETPLACE_KEY",
    help="Key that clients send; without one a random key is made and shown.",
)
@click.option("--engine", type=click.Choice(ENGINES), default="process", show_default=True, help="What a box is.")
@click.option("--seed", type=int, default=0, show_default=True, help="Which market is drawn.")
@click.option(
    "--machines",
    type=click.IntRange(min=len(REHEARSAL_4090)),
    default=CATALOGUE_SIZE,
    show_default=True,
    help="How many there are to let.",
)
@click.option("--state", type=click.Path(path_type=Path, file_okay=False), help="Directory of boxes and bill.")
@click.option("--speed", type=click.FloatRange(min=1), default=1.0, show_default=True, help="Market seconds a second.")
@click.option(
    "--moving-bids",
    type=click.FloatRange(min=0, max=0.9),
    default=0.0,
    show_default=True,
    help="By what share the least bids move, by seed and time.",
)
@click.option("--meter-ssh", is_flag=True, help="Bill what goes over the boxes' own ssh too, through a relay for each.")
@click.option("--credit", type=click.FloatRange(min=0), help="Dollars that the account has; else it never runs out.")
@click.option("--boot-s", type=click.FloatRange(min=0), default=0.4, show_default=True, help="Shortest start of a box.")
@click.option(
    "--dialect",
    multiple=True,
    metavar="NAME=VALUE",
    callback=lambda _context, _option, given: dialect_of(given),
    help="How what no source settles is worded; may be repeated.",
)
@click.option("--rate-limits/--no-rate-limits", default=False, show_default=True, help="The market's own intervals.")
@click.option(
    "--connection",
    "connections",
    multiple=True,
    metavar="NAME=FOLDER",
    callback=lambda _context, _option, given: connections_in(given),
    help="A cloud connection whose bucket is a folder of this machine; may be repeated.",
)
@click.option(
    "--faults",
    "script",
    type=click.Path(path_type=Path, dir_okay=False),
    help="YAML or JSON file of what goes wrong, and when.",
)
@click.option("--image", default="", help="Image of the podman engine; built when not given.")
@click.option("--json", "as_json", is_flag=True, help="Announce the address as one line of JSON.")
def serve_command(
    port: int,
    api_key: str | None,
    engine: str,
    seed: int,
    machines: int,
    state: Path | None,
    speed: float,
    moving_bids: float,
    meter_ssh: bool,
    credit: float | None,
    boot_s: float,
    dialect: Dialect,
    rate_limits: bool,
    connections: tuple[tuple[str, Path], ...],
    script: Path | None,
    image: str,
    as_json: bool,
) -> None:
    # Imported late: the server's libraries are not needed to show the help.
    from .server import Served, serve

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        faults = NO_FAULTS if script is None else read_script(script)
    except TenantFailure as failure:
        _end_with(failure)
    config = MarketplaceConfig(
        port=port,
        api_key=api_key or secrets.token_hex(16),
        engine=engine,
        seed=seed,
        machines=machines,
        state=(state or default_state_directory()).absolute(),
        speed=speed,
        moving_bids=moving_bids,
        meter_ssh=meter_ssh,
        credit=credit,
        boot_s=boot_s,
        dialect=dialect,
        rate_limits=rate_limits,
        image=image,
        connections=connections,
        faults=faults,
    )

    def announce(served: Served) -> None:
        if as_json:
            click.echo(json.dumps({"url": served.url, "state": str(config.state), "engine": served.engine}))
            return
        click.echo(f"The marketplace answers on {served.url} (engine {engine}, state {config.state})")
        click.echo(f"Boxes: {served.engine['isolation']}; log in as {served.engine['login']}")
        click.echo(f"Clients: export VAST_URL={served.url} VAST_API_KEY={'…' if api_key else config.api_key}")
        click.echo(f"Offers, instances, bill and faults: {served.url}/")
        click.echo("Ctrl-C ends it and every box.")

    # Until the server listens to signals itself, an end asked for is an interruption like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        serve(config, announce)
    except TenantFailure as failure:
        _end_with(failure)
    except KeyboardInterrupt:
        click.echo("The marketplace ended, and every box with it.", err=True)


def _end_with(failure: TenantFailure) -> NoReturn:
    click.echo(f"Error: {failure}", err=True)
    sys.exit(failure.exit_code)


def main() -> None:
    marketplace_group(prog_name="gpu-tenant marketplace")
