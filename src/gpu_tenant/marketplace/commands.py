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
from typing import TYPE_CHECKING, Any

import click
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

from .config import ENGINES, MarketplaceConfig, default_state_directory
from .dialects import Dialect, dialect_in, meanings, switches
from .faults import NO_FAULTS, read_script
from .offers import CATALOGUE_SIZE, REHEARSAL_4090

if TYPE_CHECKING:
    from .server import Served


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


def _dialect_help() -> str:
    values = switches()
    told = "; ".join(f"{name} ({', '.join(values[name])}): {what}" for name, what in meanings().items())
    return f"How what no source settles is worded, the first value by default; may be repeated. {told}."


@click.group(
    name="marketplace", help="A local market: the REST of vast.ai, RunPod, Lambda and Paperspace, and real boxes."
)
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
    help=_dialect_help(),
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
    *, api_key: str | None, state: Path | None, script: Path | None, as_json: bool, **options: Any
) -> None:
    # Imported late: the server's libraries are not needed to show the help.
    from .server import serve

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    # Until the server listens to signals itself, an end asked for is an interruption like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        config = MarketplaceConfig(
            api_key=api_key or secrets.token_hex(16),
            state=(state or default_state_directory()).absolute(),
            faults=NO_FAULTS if script is None else read_script(script),
            **options,
        )

        def announce(served: Served) -> None:
            _announce(config, served, as_json, is_key_known=bool(api_key))

        serve(config, announce)
    except TenantFailure as failure:
        click.echo(f"Error: {failure}", err=True)
        sys.exit(failure.exit_code)
    except KeyboardInterrupt:
        click.echo("The marketplace ended, and every box with it.", err=True)


def _announce(config: MarketplaceConfig, served: Served, as_json: bool, is_key_known: bool) -> None:
    if as_json:
        click.echo(json.dumps({"url": served.url, "state": str(config.state), "engine": served.engine}))
        return
    click.echo(f"The marketplace answers on {served.url} (engine {config.engine}, state {config.state})")
    click.echo(f"Boxes: {served.engine['isolation']}; log in as {served.engine['login']}")
    click.echo(f"Clients: export VAST_URL={served.url} VAST_API_KEY={'…' if is_key_known else config.api_key}")
    click.echo(f"Offers, instances, bill and faults: {served.url}/")
    click.echo("Ctrl-C ends it and every box.")


def main() -> None:
    marketplace_group(prog_name="gpu-tenant marketplace")
