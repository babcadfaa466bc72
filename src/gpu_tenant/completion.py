# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a shell completes: boxes by the inventory, run specs by the folder ``runs``. The rest is click's own.

A completion never fails and never writes: where something cannot be read, there is nothing to complete.
"""

from __future__ import annotations

import glob
import re

import click
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from click.shell_completion import CompletionItem, get_completion_class

from gpu_tenant import hosts

PROGRAM = "gpu-tenant"
VARIABLE = "_GPU_TENANT_COMPLETE"
SHELLS = ("bash", "zsh", "fish")
_SPECS = ("runs/*.yml", "runs/*.yaml", "*/run*.yml")
_MOST_BYTES = 65536
_ID = re.compile(r"^id:[ \t]*[\"']?([A-Za-z0-9][A-Za-z0-9._-]*)", re.MULTILINE)


def boxes(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of boxes in the inventory that the command line names so far, else in the default one."""
    return [box.name for box in _inventory(ctx) if box.name.startswith(incomplete)]


def limits(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Boxes and platforms; of a list with commas, the last one."""
    before, comma, last = incomplete.rpartition(",")
    found = _inventory(ctx)
    names = [box.name for box in found] + sorted({box.text("platform_name") for box in found} - {""})
    return [f"{before}{comma}{name}" for name in names if name.startswith(last)]


def _inventory(ctx: click.Context) -> tuple[hosts.BoxHost, ...]:
    try:
        return hosts.resolve("all", tuple(ctx.params.get("inventories") or ())).boxes
    except TenantFailure:
        return ()


def specs(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Run specs below this folder; any file where the word leads elsewhere."""
    found = [CompletionItem(path) for path, _run in _runs() if path.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]


def run_ids(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The ids of the run specs below this folder."""
    return sorted({run for _path, run in _runs() if run.startswith(incomplete)})


def _runs() -> list[tuple[str, str]]:
    """Paths of run specs with their ids."""
    found = []
    for path in sorted({path for pattern in _SPECS for path in glob.glob(pattern)}):
        try:
            with open(path, "rb") as stream:
                text = stream.read(_MOST_BYTES).decode("utf-8", "replace")
        except OSError:
            continue
        match = _ID.search(text)
        if match and re.search(r"^command:", text, re.MULTILINE):
            found.append((path, match.group(1)))
    return found


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes SHELL complete commands, options, boxes and run specs; nothing is installed."""
    chosen = get_completion_class(shell)
    assert chosen is not None
    click.echo(chosen(ctx.find_root().command, {}, PROGRAM, VARIABLE).source())
