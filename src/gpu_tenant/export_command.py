# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The command ``export``: a run spec as a job of another system. Starts nothing."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import click
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import load_run_spec

from gpu_tenant import completion, output_file
from gpu_tenant.cli_options import json_option
from gpu_tenant.export import targets
from gpu_tenant.export.place import Place, Rendered

STDOUT = "-"
_HELPER = "tenant_checkpoint"


@click.command()
@click.argument("spec", metavar="RUN", shell_complete=completion.specs)
@click.option("--to", "target", required=True, type=click.Choice(sorted(targets.TARGETS)), help="Who shall run it.")
@click.option("--output", default=STDOUT, show_default=True, metavar="FILE|-", help="Where it is written.")
@click.option("--cell", default="", help="Only this cell of the run.")
@click.option(
    "--checkpoints",
    default="",
    help="What outlives a machine: a bucket (skypilot, sagemaker), a folder (slurm), a claim (kubernetes) [made].",
)
@click.option("--image", default="", help="Container image that holds the code (kubernetes, sagemaker; skypilot may).")
@click.option("--code-dir", "code", default="", help="Where the code lies there [default: see docs/export.md].")
@click.option("--inputs-dir", "inputs", default="", help="Where the inputs of the run lie there.")
@click.option("--gpu", default="", help="What the target calls the card.")
@click.option("--role", default="", help="ARN of the job's role (sagemaker).")
@click.option("--instance-type", default="", help="For example ml.g5.xlarge (sagemaker).")
@click.option("--max-wait-s", default=0, type=click.IntRange(min=0), help="[default: twice deadline_s] (sagemaker)")
@click.option("--storage-class", default="", help="Of the volume claim (kubernetes).")
@json_option
def export(spec: str, target: str, output: str, cell: str, as_json: bool, **options: Any) -> None:
    """Render the run spec RUN as a job of another system, which resumes it under its own recovery. Starts nothing.

    What that system cannot do for the run is said in the output, or refused.
    """
    rendered = targets.render(target, load_run_spec(spec), Place(helper=_helper(), **options), cell)
    if output != STDOUT:
        output_file.write(output, rendered.text)
    _tell(target, output, rendered, as_json)


def _helper() -> str:
    """Path of the checkpoint helper here; it is looked for and not imported, because it needs torch."""
    found = importlib.util.find_spec(_HELPER)
    return str(found.origin) if found is not None and found.origin else ""


def _tell(target: str, output: str, rendered: Rendered, as_json: bool) -> None:
    if as_json:
        text = {"text": rendered.text} if output == STDOUT else {"output": output}
        click.echo(json.dumps({"event": "export", "to": target, "notes": list(rendered.notes), **text}))
        return
    if output == STDOUT:
        click.echo(rendered.text, nl=False)
    else:
        click.echo(f"wrote {output}")
    if not rendered.says_notes:
        for note in rendered.notes:
            click.echo(f"not done there: {note}", err=True)
