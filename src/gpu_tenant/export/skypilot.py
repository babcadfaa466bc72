# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A run as a SkyPilot managed job on spot machines, its checkpoints in a bucket. Pure."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import PREEMPTED

from gpu_tenant.export import cells, notes, shell_text, yaml_text
from gpu_tenant.export.place import Place, Rendered, demand, refused

NAME = "skypilot"
USES = ("checkpoints", "image", "inputs", "gpu")
MOUNT = "/gpu-tenant/checkpoints"
_HELPER = "/gpu-tenant/lib/tenant_checkpoint.py"
_BUCKET = re.compile(r"(s3|gs|r2|cos|oci|nebius|cw|tigris)://[A-Za-z0-9][A-Za-z0-9._/-]*\Z")
_CELL = "TENANT_CELL"
# SkyPilot's own image takes about this much of the disk that is asked for.
_IMAGE_GB = 50


def render(spec: Mapping[str, Any], place: Place) -> Rendered:
    cells.refuse_unusable(spec, NAME)
    demand(place, NAME, {"checkpoints": "a bucket such as s3://my-bucket/runs"})
    if not _BUCKET.match(place.checkpoints):
        raise refused(
            f"{place.checkpoints!r} is no bucket that SkyPilot mounts", "give s3://BUCKET/PATH, gs://…, r2://…"
        )
    needs = cells.demands(spec)
    if any("$" in path for path in (spec["code_dir"], place.helper)):
        what = f"SkyPilot expands the $ in {spec['code_dir']!r} or {place.helper!r}"
        raise refused(what, "move it to a path without $")
    base = f"{MOUNT}/{cells.folder_name(spec)}"
    jobs = cells.cell_jobs(spec, base, place.inputs, posixpath.dirname(_HELPER) if place.helper else "")
    told = {"gpu_count", "disk_gb", *(["gpu_name"] if _accelerator(spec, place) else [])}
    left_out = notes.notes(spec, place.checkpoints, told, ["requirements"])
    left_out += _of_sky(spec, needs)
    task = {
        "name": cells.job_name(spec, 60),
        "workdir": spec["code_dir"],
        "resources": _resources(spec, place, needs),
        # With several cells each launch names its own; null makes SkyPilot ask for it.
        "envs": {_CELL: jobs[0].name if len(jobs) == 1 else None},
        **({"secrets": {secret["name"]: None for secret in spec["secrets"]}} if spec["secrets"] else {}),
        "file_mounts": _mounts(place),
        **({"setup": _setup(spec)} if spec["requirements"] else {}),
        "run": _script(spec, needs, jobs),
    }
    return Rendered(notes.header(spec, NAME, _usage(spec), left_out) + yaml_text.dump(task), tuple(left_out))


def _usage(spec: Mapping[str, Any]) -> list[str]:
    secrets = "".join(f" --secret {secret['name']}" for secret in spec["secrets"])
    if len(spec["cells"]) == 1:
        return [f"sky jobs launch{secrets} THIS_FILE"]
    return [f"sky jobs launch{secrets} --env {_CELL}={cell['id']} THIS_FILE" for cell in spec["cells"]]


def _of_sky(spec: Mapping[str, Any], needs: cells.Demands) -> list[str]:
    found = [
        "grace_s: spot markets give less, or none; what counts are the checkpoints in the bucket, which are uploaded "
        "behind the training (MOUNT_CACHED: the other mode takes no file that is written in more than one go)",
    ]
    if spec["requirements"]:
        found.append("requirements: installed as they stand; pins of torch are not taken out")
    if needs.gpus:
        found.append("resources.gpu_name: sky gpus list tells whether SkyPilot knows the card by the name below")
    if spec["code"].get("exclude"):
        found.append("code.exclude: SkyPilot uploads what .skyignore or .gitignore does not name")
    return found


def _accelerator(spec: Mapping[str, Any], place: Place) -> str:
    """SkyPilot writes ``RTX4090`` where the markets write ``RTX 4090``."""
    return place.gpu or "".join(str(spec["resources"].get("gpu_name") or "").split())


def _resources(spec: Mapping[str, Any], place: Place, needs: cells.Demands) -> dict[str, Any]:
    card = _accelerator(spec, place)
    if needs.gpus and not card:
        raise refused("SkyPilot wants the name of a card", "say resources.gpu_name in the run spec, or --gpu")
    return {
        **({"accelerators": {card: needs.gpus}} if needs.gpus else {}),
        "use_spot": True,
        "disk_size": needs.disk_gb + _IMAGE_GB,
        "job_recovery": {
            "max_restarts_on_errors": needs.retries,
            # A trainer that was asked to stop has saved, and is started again as after a lost machine.
            "recover_on_exit_codes": [PREEMPTED],
        },
        **({"image_id": f"docker:{place.image}"} if place.image else {}),
    }


def _mounts(place: Place) -> dict[str, Any]:
    bucket = {"source": place.checkpoints, "mode": "MOUNT_CACHED"}
    return {MOUNT: bucket, **({_HELPER: place.helper} if place.helper else {})}


def _setup(spec: Mapping[str, Any]) -> str:
    return f"python -m pip install -r {shlex.quote('./' + posixpath.normpath(spec['requirements']))}\n"


def _script(spec: Mapping[str, Any], needs: cells.Demands, jobs: list[cells.CellJob]) -> str:
    common = cells.common_env(jobs)
    lines = [
        "set -eu",
        *shell_text.exports(common),
        *shell_text.choice(_CELL, [(job.name, job) for job in jobs], common),
        shell_text.MAKE_FOLDERS,
        *shell_text.deadline(needs.deadline_s),
        f"cd -- {shlex.quote(spec['workdir'])}",
        f'exec timeout --signal=TERM --kill-after={max(1, needs.grace_s)}s "$left_s" "$@"',
    ]
    return "\n".join(lines) + "\n"
