# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from gpu_tenant import completion

# Below this a loop no longer rests. How often a provider may be asked is the business of its client, for all loops.
LEAST_POLL_S = 0.05
JSON_KEY = "gpu_tenant.json"
Command = TypeVar("Command", bound=Callable[..., Any])


def _remember_json(ctx: click.Context, parameter: click.Parameter, value: bool) -> bool:
    ctx.meta[JSON_KEY] = value
    return value


json_option = click.option(
    "--json", "as_json", is_flag=True, callback=_remember_json, help="Answer in JSON, one object per line."
)


class Seconds(click.FloatRange):
    """A time that can be waited for: ``nan`` and ``inf`` are numbers to Python, and neither ever comes."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no number of seconds.", param, ctx)
        return number


inventory_option = click.option(
    "-i", "--inventory", "inventories", multiple=True, help="Inventory source; may be repeated."
)
extra_vars_option = click.option("-e", "--extra-vars", multiple=True, help="As for ansible-playbook; no secrets.")


def _with(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


# Which inventory, for commands that name their one box or need none.
inventory_options = _with(inventory_option, extra_vars_option)
# Which boxes, from which inventory, with which folder to work in.
box_options = _with(
    click.option(
        "-l", "--limit", required=True, help="Hosts or groups of the inventory.", shell_complete=completion.limits
    ),
    inventory_option,
    extra_vars_option,
    click.option("--workspace", default="", help="The runner's folder [default: .tenant/runner]."),
    json_option,
)

run_option = click.option(
    "--run",
    default="",
    help="Path of the run spec [default: tenant_run of the inventory].",
    shell_complete=completion.specs,
)
