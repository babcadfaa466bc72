# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A run as a Slurm batch script: requeued after a preemption or a short time limit, one array task per cell. Pure."""

from __future__ import annotations

import math
import posixpath
import re
import shlex
from collections.abc import Mapping
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import batch_options
from ansible_collections.tenant.gpu.plugins.module_utils.box import slurm_job
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import PREEMPTED

from gpu_tenant.export import cells, notes, shell_text
from gpu_tenant.export.place import Place, Rendered, demand, refused

NAME = "slurm"
USES = ("checkpoints", "code", "inputs", "gpu")
# sbatch reads its lines with rules of its own for quotes, % and #, so none of them may be in a path.
_PATH = re.compile(r"/[A-Za-z0-9._/@+=,:-]*\Z")
_GRES_TYPE = re.compile(rf"{batch_options.GRES_TYPE}\Z")
_ARRAY_INDEX = "SLURM_ARRAY_TASK_ID"

_WATCH = f"""\
trainer= stopped= woken=
on_term() {{
  stopped=1 woken=1
  [ -z "$trainer" ] || kill -TERM "$trainer" 2>/dev/null
}}
# bash runs a trap only when no program is in its foreground, so the trainer runs behind it.
trap on_term TERM
"$@" &
trainer=$!
[ -z "$stopped" ] || kill -TERM "$trainer" 2>/dev/null
while :; do
  woken=
  wait "$trainer"
  code=$?
  [ -n "$woken" ] && [ "$code" -gt 128 ] || break
done
if [ "$code" -eq 0 ]; then
  exit 0
fi
# A job that somebody cancelled is told to stop too, and must not come back: it is no longer RUNNING.
if {{ [ -n "$stopped" ] || [ "$code" -eq {PREEMPTED} ]; }} && [ "$(date +%s)" -lt "$until_s" ] &&
  [ "$(squeue --noheader --jobs="$job" --format=%T)" = RUNNING ]; then
  echo "gpu-tenant: stopped before its end (exit $code); back into the queue" >&2
  scontrol requeue "$job" || echo "gpu-tenant: it could not be queued again: submit this script once more" >&2
fi
exit "$code"
"""


def render(spec: Mapping[str, Any], place: Place) -> Rendered:
    cells.refuse_unusable(spec, NAME)
    demand(place, NAME, {"checkpoints": "a folder on the file system that all nodes share"})
    needs, root = cells.demands(spec), place.checkpoints.rstrip("/")
    if not _PATH.match(root) or ".." in root.split("/"):
        what = f"{place.checkpoints!r} cannot stand in an #SBATCH line"
        raise refused(what, "give an absolute path of letters, digits and . _ / @ + = , : -")
    if place.gpu and not _GRES_TYPE.match(place.gpu):
        raise refused(f"{place.gpu!r} is no gres type", "give the word that sinfo -o %G shows behind gpu:")
    base = f"{root}/{cells.folder_name(spec)}"
    jobs = cells.cell_jobs(spec, base, place.inputs)
    left_out = _left_out(spec, place, base)
    text = "#!/bin/bash\n" + notes.header(spec, NAME, _usage(spec, root), left_out) + _directives(spec, place, needs)
    body = [*_body(spec, jobs), *shell_text.deadline(needs.deadline_s), *_enter(spec, place)]
    return Rendered(text + "\n" + "\n".join(body) + "\n" + _WATCH, tuple(left_out))


def _usage(spec: Mapping[str, Any], root: str) -> list[str]:
    lines = [
        f"sbatch this file where {root} is mounted; options of the command line win, for instance --partition.",
        "A shorter time limit than the deadline is fine: the job saves, queues itself again, and goes on.",
        "python and what the code imports, tenant_checkpoint.py too, are those of the shell that calls sbatch.",
    ]
    names = ", ".join(_source(secret) for secret in spec["secrets"])
    return [*lines, *([f"Secrets come from the environment of sbatch: {names}."] if names else [])]


def _source(secret: Mapping[str, Any]) -> str:
    return str(secret["env"] or secret["name"])


def _left_out(spec: Mapping[str, Any], place: Place, base: str) -> list[str]:
    told = {"gpu_count", *(["gpu_name"] if place.gpu else [])}
    found = notes.notes(spec, base, told)
    if cells.demands(spec).retries:
        found.append("retries: Slurm starts a job again after a preemption or a lost node, not after a failure")
    return found


def _directives(spec: Mapping[str, Any], place: Place, needs: cells.Demands) -> str:
    notice = needs.grace_s + slurm_job.NOTICE_MARGIN_S
    if notice > slurm_job.MOST_NOTICE_S:
        raise refused(f"grace_s {needs.grace_s} is more notice than Slurm gives", "lower grace_s")
    several = len(spec["cells"]) > 1
    name = cells.job_name(spec, 63)
    options = [
        f"--job-name={name}",
        "--nodes=1",
        "--ntasks=1",
        *([f"--gres=gpu:{place.gpu + ':' if place.gpu else ''}{needs.gpus}"] if needs.gpus else []),
        # The notice may come so much early, and must not come before the deadline.
        f"--time={math.ceil((needs.deadline_s + notice + batch_options.EARLY_S) / 60)}",
        "--requeue",
        f"--signal=B:TERM@{notice}",
        "--open-mode=append",
        "--export=ALL",
        f"--output={place.checkpoints.rstrip('/')}/{name}-{'%A_%a' if several else '%j'}.log",
        *([f"--array=0-{len(spec['cells']) - 1}"] if several else []),
    ]
    return "".join(f"#SBATCH {option}\n" for option in options)


def _body(spec: Mapping[str, Any], jobs: list[cells.CellJob]) -> list[str]:
    common = cells.common_env(jobs)
    # A requeued job has the environment it was submitted with, so the secrets are there each time.
    wanted = [
        f'export {secret["name"]}="${{{_source(secret)}:?set it where sbatch is called}}"' for secret in spec["secrets"]
    ]
    lines = ["set -u", *wanted, *shell_text.exports(common)]
    if len(jobs) > 1:
        numbered = [(str(number), job) for number, job in enumerate(jobs)]
        lines += shell_text.choice(_ARRAY_INDEX, numbered, common)
        return [*lines, f'job="${{SLURM_ARRAY_JOB_ID}}_${{{_ARRAY_INDEX}}}"', f"{shell_text.MAKE_FOLDERS} || exit 1"]
    return [*lines, shell_text.the_command(jobs[0].argv), 'job="$SLURM_JOB_ID"', f"{shell_text.MAKE_FOLDERS} || exit 1"]


def _enter(spec: Mapping[str, Any], place: Place) -> list[str]:
    workdir = posixpath.normpath(posixpath.join(place.code or spec["code_dir"], spec["workdir"]))
    return [f"cd -- {shlex.quote(workdir)} || exit 1"]
