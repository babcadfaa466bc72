# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The command line. Every verb ends with a stable exit code and says what is wrong in one line; ``--json`` says it so.

A command's module is read when that command is asked for: all of them together take longer than many a command.
"""

from __future__ import annotations

import importlib
import json
from typing import Any

import click
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import UnsafeName
from ansible_collections.tenant.gpu.plugins.module_utils.box.records import RecordError
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

from gpu_tenant import __version__, completion, examples, interrupts, outlet
from gpu_tenant.cli_options import JSON_KEY

# Each command's module and its name there.
COMMANDS = {
    **dict.fromkeys(("provision", "mirrors", "deploy", "train", "harvest", "teardown"), ("role_commands", "")),
    "account": ("go_command", "account_command"),
    "approve": ("approve_command", "approve_command"),
    "audit": ("looking", "audit_accounts"),
    "completion": ("completion", "completion"),
    "demo": ("rehearse_command", "demo_command"),
    "export": ("export_command", "export"),
    "go": ("go_command", "go_command"),
    "init": ("init_command", "init"),
    "logs": ("looking", "logs_of"),
    "marketplace": ("marketplace.commands", "marketplace_group"),
    "plan": ("role_commands", "plan"),
    "rehearse": ("rehearse_command", "rehearse_command"),
    "report": ("report_command", "report_command"),
    "ssh": ("looking", "ssh"),
    "status": ("status_command", "status"),
    "sweep": ("sweep_command", "sweep_group"),
    "watch": ("watch_command", "watch_command"),
}


STOPPED = TenantFailure(
    "interrupted",
    "stopped on request",
    safe="nothing more was begun",
    fix="the same command, given again, does what is left of it",
)


class TenantGroup(click.Group):
    """Turns expected failures into one clear line and their exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module_name, name = COMMANDS[cmd_name]
        module = importlib.import_module(f"gpu_tenant.{module_name}")
        command: click.Command = getattr(module, name) if name else module.VERBS[cmd_name]
        examples.attach(command, cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TenantFailure as failure:
            ctx.exit(report(failure, bool(ctx.meta.get(JSON_KEY))))
        except KeyboardInterrupt:
            ctx.exit(report(STOPPED, bool(ctx.meta.get(JSON_KEY))))
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


def main() -> None:
    outlet.install()
    with interrupts.taken_as_ctrl_c():
        cli.main(prog_name=completion.PROGRAM, complete_var=completion.VARIABLE)


if __name__ == "__main__":
    main()
