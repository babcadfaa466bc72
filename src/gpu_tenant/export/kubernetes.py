# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A run as Kubernetes manifests: a volume claim, and one Job whose indexes are the cells. Pure."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import PREEMPTED

from gpu_tenant.export import cells, notes, shell_text, yaml_text
from gpu_tenant.export.place import OPTIONS, Place, Rendered, demand, refused

NAME = "kubernetes"
USES = ("checkpoints", "image", "code", "inputs", "gpu", "storage_class")
MOUNT = "/checkpoints"
CONTAINER = "trainer"
_CODE = "/workspace"
_INDEX = "JOB_COMPLETION_INDEX"
# An Indexed Job's pods have the name, a hyphen and the index as host name, which is a label of 63 characters.
_MOST_NAME = 52
_OBJECT = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\Z")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\Z")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*\Z")
# Between the trainer's own grace and the kill.
_MARGIN_S = 10


def render(spec: Mapping[str, Any], place: Place) -> Rendered:
    cells.refuse_unusable(spec, NAME)
    demand(place, NAME, {"image": "an image that holds the code, best by digest"})
    _check_names(place)
    needs = cells.demands(spec)
    base = f"{MOUNT}/{cells.folder_name(spec)}"
    jobs = cells.cell_jobs(spec, base, place.inputs)
    left_out = notes.notes(
        spec,
        f"{base} of the volume",
        {"gpu_count", *(["gpu_name"] if place.gpu else []), *([] if place.checkpoints else ["disk_gb"])},
    )
    left_out.append("deadline_s: here it counts from the moment the Job is made, waiting for a GPU included")
    documents = [] if place.checkpoints else [_claim(spec, place, needs)]
    documents.append(_job(spec, place, needs, jobs))
    text = notes.header(spec, NAME, _usage(spec, place), left_out)
    return Rendered(text + "".join("---\n" + yaml_text.dump(document) for document in documents), tuple(left_out))


def _check_names(place: Place) -> None:
    for field, text, pattern in (
        ("checkpoints", place.checkpoints, _OBJECT),
        ("storage_class", place.storage_class, _OBJECT),
        ("gpu", place.gpu, _LABEL),
        ("image", place.image, _IMAGE),
    ):
        if text and not pattern.match(text):
            raise refused(f"{OPTIONS[field]} {text!r} is no name that Kubernetes takes", "correct it")


def _usage(spec: Mapping[str, Any], place: Place) -> list[str]:
    lines = [
        "kubectl apply -f this file. To begin again, delete the Job; the volume claim keeps the checkpoints.",
        f"The image holds the code in {_code(place)}, and tenant_checkpoint.py (pip install gpu-tenant) if it is used.",
    ]
    if spec["secrets"]:
        keys = ", ".join(secret["name"] for secret in spec["secrets"])
        lines.append(f"The Secret {_secret_name(spec)} must have the keys {keys} (kubectl create secret generic")
        lines.append("--from-file, so that no value stands in a command line).")
    return lines


def _code(place: Place) -> str:
    return place.code or _CODE


def _name(spec: Mapping[str, Any]) -> str:
    return cells.job_name(spec, _MOST_NAME)


def _secret_name(spec: Mapping[str, Any]) -> str:
    return f"{_name(spec)}-env"


def _claim_name(spec: Mapping[str, Any], place: Place) -> str:
    return place.checkpoints or f"{_name(spec)}-ckpt"


def _metadata(spec: Mapping[str, Any], name: str) -> dict[str, Any]:
    about = {"run": spec["id"], "spec-sha256": spec["spec_sha256"], "code-sha256": spec["code_sha256"]}
    return {
        "name": name,
        "labels": {"app.kubernetes.io/managed-by": "gpu-tenant"},
        "annotations": {f"gpu-tenant/{key}": value for key, value in about.items()},
    }


def _claim(spec: Mapping[str, Any], place: Place, needs: cells.Demands) -> dict[str, Any]:
    several = len(spec["cells"]) > 1
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _metadata(spec, _claim_name(spec, place)),
        "spec": {
            # Cells may run on different nodes, and a volume for one node would hold all but the first back.
            "accessModes": ["ReadWriteMany" if several else "ReadWriteOnce"],
            **({"storageClassName": place.storage_class} if place.storage_class else {}),
            "resources": {"requests": {"storage": f"{needs.disk_gb * len(spec['cells'])}Gi"}},
        },
    }


def _job(spec: Mapping[str, Any], place: Place, needs: cells.Demands, jobs: list[cells.CellJob]) -> dict[str, Any]:
    several = len(jobs) > 1
    counted = (
        {
            "completionMode": "Indexed",
            "completions": len(jobs),
            "parallelism": len(jobs),
            # A cell that fails for good leaves the others at work.
            "backoffLimitPerIndex": needs.retries,
        }
        if several
        else {"backoffLimit": needs.retries}
    )
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(spec, _name(spec)),
        "spec": {
            **counted,
            "activeDeadlineSeconds": needs.deadline_s,
            # The next pod starts when the last one has ended: two never write into one folder.
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                # A lost node or a stop that can be resumed is no failure, and uses up no try.
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {
                        "action": "Ignore",
                        "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [PREEMPTED]},
                    },
                ]
            },
            "template": _template(spec, place, needs, jobs),
        },
    }


def _template(spec: Mapping[str, Any], place: Place, needs: cells.Demands, jobs: list[cells.CellJob]) -> dict[str, Any]:
    return {
        "metadata": {"labels": {"app.kubernetes.io/managed-by": "gpu-tenant"}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": needs.grace_s + _MARGIN_S,
            "automountServiceAccountToken": False,
            **({"nodeSelector": {"nvidia.com/gpu.product": place.gpu}} if place.gpu else {}),
            "containers": [_container(spec, place, needs, jobs)],
            "volumes": [
                {"name": "checkpoints", "persistentVolumeClaim": {"claimName": _claim_name(spec, place)}},
            ],
        },
    }


def _container(
    spec: Mapping[str, Any], place: Place, needs: cells.Demands, jobs: list[cells.CellJob]
) -> dict[str, Any]:
    common = cells.common_env(jobs)
    several = len(jobs) > 1
    secret = _secret_name(spec)
    return {
        "name": CONTAINER,
        "image": place.image,
        # exec: the trainer becomes the process that is sent SIGTERM.
        "command": ["/bin/sh", "-c", unexpanded(_script(spec, place, jobs, common)), "gpu-tenant"],
        **({} if several else {"args": [unexpanded(word) for word in jobs[0].argv]}),
        "env": [
            *({"name": name, "value": unexpanded(value)} for name, value in common.items()),
            *(
                {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": name}}}
                for name in (entry["name"] for entry in spec["secrets"])
            ),
        ],
        **({"resources": {"limits": {"nvidia.com/gpu": str(needs.gpus)}}} if needs.gpus else {}),
        "volumeMounts": [{"name": "checkpoints", "mountPath": MOUNT}],
    }


def _script(spec: Mapping[str, Any], place: Place, jobs: list[cells.CellJob], common: Mapping[str, str]) -> str:
    workdir = posixpath.normpath(posixpath.join(_code(place), spec["workdir"]))
    chosen = []
    if len(jobs) > 1:
        chosen = shell_text.choice(_INDEX, [(str(number), job) for number, job in enumerate(jobs)], common)
    lines = ["set -eu", *chosen, shell_text.MAKE_FOLDERS, f"cd -- {shlex.quote(workdir)}", 'exec "$@"']
    return "\n".join(lines) + "\n"


def unexpanded(text: str) -> str:
    """``text`` as Kubernetes leaves it: it expands ``$(NAME)`` in command, args and env, and takes ``$$`` for ``$``."""
    return text.replace("$", "$$")
