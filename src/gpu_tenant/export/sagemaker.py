# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A cell as the request of SageMaker's CreateTrainingJob with managed spot training. Pure.

The lengths and patterns are those of the service's own model; its client checks few of them, and an answer of the
service that comes after the upload of an image is late.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from typing import Any

from gpu_tenant.export import cells, notes, shell_text
from gpu_tenant.export.place import Place, Rendered, demand, refused

NAME = "sagemaker"
USES = ("checkpoints", "image", "code", "inputs", "role", "instance_type", "max_wait_s")
LOCAL = "/opt/ml/checkpoints"
_LINE_ENDS = "\n\r\x85\u2028\u2029"
# Between SIGTERM and SIGKILL.
GRACE_S = 120
_CODE = "/opt/ml/code"
_MOST_RUN_S = 28 * 86400
MOST_WORDS, MOST_WORD, MOST_VARIABLES, MOST_VALUE, MOST_NAME = 100, 256, 100, 512, 63
MOST_IMAGE, MOST_URI, MOST_RETRIES = 255, 1024, 30
_S3 = re.compile(r"s3://[a-z0-9][a-z0-9.-]+(/.*)?\Z")
_ROLE = re.compile(r"arn:aws[a-z\-]*:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+\Z")


def render(spec: Mapping[str, Any], place: Place) -> Rendered:
    request = request_of(spec, place)
    left_out = notes.notes(spec, request["CheckpointConfig"]["S3Uri"], {"disk_gb"})
    left_out.append("the image holds the code and tenant_checkpoint.py; whether it is this code is not checked")
    if cells.demands(spec).retries:
        left_out.append("retries: SageMaker tries again after its own errors and lost machines, not after a failure")
    if cells.demands(spec).grace_s > GRACE_S:
        left_out.append(f"grace_s: a spot machine leaves {GRACE_S} s, so the trainer is told {GRACE_S} s")
    return Rendered(json.dumps(request, indent=2) + "\n", tuple(left_out), says_notes=False)


def request_of(spec: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """The request, or a refusal of what the service would refuse, or run otherwise than the spec says."""
    cells.refuse_unusable(spec, NAME)
    _demand_place(place)
    _refuse_inexpressible(spec)
    needs = cells.demands(spec)
    jobs = cells.cell_jobs(spec, LOCAL, place.inputs, grace_s=min(spec["grace_s"], GRACE_S))
    uri = f"{place.checkpoints.rstrip('/')}/{cells.folder_name(spec)}/{jobs[0].name}"
    _at_most("the checkpoint URI", uri, MOST_URI)
    return {
        "TrainingJobName": cells.job_name(spec, MOST_NAME),
        "RoleArn": place.role,
        "AlgorithmSpecification": {
            "TrainingImage": place.image,
            "TrainingInputMode": "File",
            **_container(spec, place, jobs[0]),
        },
        "Environment": _environment(jobs[0]),
        "ResourceConfig": {
            "InstanceType": place.instance_type,
            "InstanceCount": 1,
            "VolumeSizeInGB": needs.disk_gb,
        },
        "EnableManagedSpotTraining": True,
        "StoppingCondition": _stopping(needs, place),
        # Brought back before a restart, and uploaded while the trainer writes.
        "CheckpointConfig": {"S3Uri": uri, "LocalPath": LOCAL},
        "OutputDataConfig": {"S3OutputPath": f"{uri}/output"},
        **({"RetryStrategy": {"MaximumRetryAttempts": min(needs.retries, MOST_RETRIES)}} if needs.retries else {}),
    }


def _demand_place(place: Place) -> None:
    demand(
        place,
        NAME,
        {
            "checkpoints": "s3://BUCKET/PREFIX",
            "image": "an image in ECR that holds the code",
            "role": "the ARN of the role that the job has",
            "instance_type": "for example ml.g5.xlarge",
        },
    )
    if not _S3.match(place.checkpoints):
        raise refused(f"{place.checkpoints!r} is no S3 prefix", "give --checkpoints s3://BUCKET/PREFIX")
    if not _ROLE.match(place.role):
        raise refused(f"{place.role!r} is no role", "give --role arn:aws:iam::123456789012:role/NAME")
    if not place.instance_type.startswith("ml."):
        raise refused(f"{place.instance_type!r} is no instance type of SageMaker", "give one that begins with ml.")
    _at_most("the image", place.image, MOST_IMAGE)


def _refuse_inexpressible(spec: Mapping[str, Any]) -> None:
    if len(spec["cells"]) > 1:
        names = ", ".join(cell["id"] for cell in spec["cells"])
        what = f"run {spec['id']} has {len(spec['cells'])} cells, and a training job of SageMaker is one"
        raise refused(what, f"export each cell by itself with --cell: {names}")
    if spec["secrets"]:
        names = ", ".join(secret["name"] for secret in spec["secrets"])
        what = f"SageMaker has no place for the secrets {names}: whoever may describe the job reads its environment"
        raise refused(
            what, "let the script read them from Secrets Manager with the job's role; take them out of the spec"
        )


def _container(spec: Mapping[str, Any], place: Place, job: cells.CellJob) -> dict[str, Any]:
    workdir = posixpath.normpath(posixpath.join(place.code or _CODE, spec["workdir"]))
    # The working folder is an argument, not a part of the script, so nothing of it is ever read as shell.
    script = f'{shell_text.MAKE_FOLDERS} && cd -- "$1" && shift && exec "$@"'
    entry, arguments = ["/bin/sh", "-c", script, "gpu-tenant", workdir], list(job.argv)
    for word in [*entry, *arguments]:
        _at_most("a word of the command", word, MOST_WORD)
        if any(char in word for char in _LINE_ENDS):
            raise refused(f"SageMaker takes no line end in a word of the command: {word!r}", "put it into the script")
    if len(arguments) > MOST_WORDS:
        raise refused(f"the command has {len(arguments)} words, SageMaker takes {MOST_WORDS}", "shorten the command")
    return {"ContainerEntrypoint": entry, "ContainerArguments": arguments}


def _environment(job: cells.CellJob) -> dict[str, str]:
    found = dict(job.env)
    if len(found) > MOST_VARIABLES:
        raise refused(f"{len(found)} environment variables, SageMaker takes {MOST_VARIABLES}", "shorten env")
    for name, value in found.items():
        _at_most(f"the name of env {name[:40]}", name, MOST_VALUE)
        _at_most(f"env {name}", value, MOST_VALUE)
    return found


def _stopping(needs: cells.Demands, place: Place) -> dict[str, int]:
    if needs.deadline_s > _MOST_RUN_S:
        raise refused(f"deadline_s {needs.deadline_s} is more than SageMaker's 28 days", "lower deadline_s")
    # It covers running, waiting for a spot machine, and the gaps: without room beyond the run there is no waiting.
    longest = place.max_wait_s or 2 * needs.deadline_s
    if longest <= needs.deadline_s:
        what = f"--max-wait-s {longest} leaves no time to wait for spot machines in a run of {needs.deadline_s} s"
        raise refused(what, "give more than deadline_s, or lower deadline_s")
    return {"MaxRuntimeInSeconds": needs.deadline_s, "MaxWaitTimeInSeconds": longest}


def _at_most(what: str, text: str, most: int) -> None:
    if len(text) > most:
        raise refused(f"{what} has {len(text)} characters, SageMaker takes {most}: {text[:80]}…", "shorten it")
