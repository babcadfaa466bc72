# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The cells of a run as a target starts them: command, environment, and folders that outlive the machine.

What the trainer reads and where it writes is worked out by the supervisor's own functions, so a script that resumes on
a rented box resumes there. A cell has one attempt folder however often the target restarts it: nobody is there to tell
attempts apart, and no target runs two at once.
"""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import records, run_record, shim, tracker_environment
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import AttemptPaths

from gpu_tenant.export.place import refused

_OUTSIDE_NAMES = re.compile(r"[^a-z0-9]+")
_DEFAULT_DISK_GB = 20


@dataclass(frozen=True)
class CellJob:
    """One cell: its whole command and environment, without secrets."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True)
class Demands:
    """The numbers of a run spec: whole seconds and gigabytes, rounded up."""

    gpus: int
    disk_gb: int
    deadline_s: int
    grace_s: int
    retries: int


def refuse_unusable(spec: Mapping[str, Any], target: str) -> None:
    """Refuse what no target can express."""
    if spec["parts"] or spec["nodes"]:
        what = f"run {spec['id']} trains on several boxes, which find each other through gpu-tenant"
        raise refused(f"{what}; a job for {target} has one machine", "export a spec without parts and nodes")


def demands(spec: Mapping[str, Any]) -> Demands:
    """What the run needs."""
    resources = spec["resources"]
    return Demands(
        gpus=resources.get("gpu_count", 1),
        disk_gb=math.ceil(resources.get("disk_gb", _DEFAULT_DISK_GB)),
        deadline_s=math.ceil(spec["deadline_s"]),
        grace_s=math.ceil(spec["grace_s"]),
        retries=spec["retries"].get("max", run_record.DEFAULT_RETRIES),
    )


def cell_jobs(
    spec: Mapping[str, Any], base: str, inputs: str, python_path: str = "", grace_s: float | None = None
) -> list[CellJob]:
    """The cells of ``spec`` with their folders below ``base``.

    :param inputs: the folder where the inputs of the run lie there.
    :param python_path: put before what the run has in PYTHONPATH.
    :param grace_s: where the target gives less of it than the run asks for.
    """
    if spec["inputs"] and not inputs:
        what = f"run {spec['id']} has inputs, which gpu-tenant fetches and verifies on a box of its own"
        raise refused(what, "bring them there, and name their folder with --inputs-dir")
    run = {
        "project": "",
        "run_id": spec["id"],
        "checkpoint": spec["checkpoint"],
        "tracker": spec["tracker"],
        "grace_s": spec["grace_s"] if grace_s is None else grace_s,
        "preemption": {"grace_s": None},
    }
    return [_cell_job(spec, run, cell, base, inputs if spec["inputs"] else "", python_path) for cell in spec["cells"]]


def _cell_job(
    spec: Mapping[str, Any], run: dict[str, Any], cell: dict[str, Any], base: str, inputs: str, python_path: str
) -> CellJob:
    paths = AttemptPaths(posixpath.join(base, cell["id"]), cell["id"], 1)
    env = {**tracker_environment.variables(run, cell, paths), **spec["env"]}
    for secret in spec["secrets"]:
        env.pop(secret["name"], None)
    parts = [part for part in (python_path, env.get("PYTHONPATH", "")) if part]
    env.update({"PYTHONPATH": ":".join(parts)} if parts else {})
    env.update(shim.tenant_variables(run, cell, paths, [], inputs), PYTHONUNBUFFERED="1")
    argv = tuple(word.replace("{inputs}", inputs) for word in [*spec["command"], *cell["args"]])
    return CellJob(cell["id"], argv, env)


def common_env(jobs: Sequence[CellJob]) -> dict[str, str]:
    """What all cells have alike."""
    return {name: value for name, value in jobs[0].env.items() if all(job.env.get(name) == value for job in jobs)}


def folder_name(spec: Mapping[str, Any]) -> str:
    """The run's folder: changed code or another spec is other work, and never resumes from this one's checkpoints."""
    return f"{spec['id']}/{spec['spec_sha256'][:12]}"


def job_name(spec: Mapping[str, Any], most: int) -> str:
    """A name of lower-case letters, digits and hyphens that no other spec and no other choice of cells has."""
    cells = [cell["id"] for cell in spec["cells"]]
    shown = f"{spec['id']}-{cells[0]}" if len(cells) == 1 and cells[0] != "main" else str(spec["id"])
    mark = records.digest({"spec": spec["spec_sha256"], "cells": cells})[:8]
    return f"{_OUTSIDE_NAMES.sub('-', shown.lower())[: most - 9].strip('-')}-{mark}"
