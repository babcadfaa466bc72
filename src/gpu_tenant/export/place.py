# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a target must be told beyond the run spec, and what a renderer answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

OPTIONS = {
    "checkpoints": "--checkpoints",
    "image": "--image",
    "code": "--code-dir",
    "inputs": "--inputs-dir",
    "gpu": "--gpu",
    "role": "--role",
    "instance_type": "--instance-type",
    "storage_class": "--storage-class",
    "max_wait_s": "--max-wait-s",
}
SAFE = "nothing was written and nothing was started"


@dataclass(frozen=True)
class Place:
    """Each is an option of ``gpu-tenant export``; empty where it was not given.

    :param checkpoints: what outlives a machine there: a bucket, a folder, a volume claim.
    :param code: where the code tree lies there.
    :param inputs: where the inputs of the run lie there.
    :param gpu: what the target calls the card.
    :param helper: path of ``tenant_checkpoint.py`` here, empty where it must not be brought along.
    """

    checkpoints: str = ""
    image: str = ""
    code: str = ""
    inputs: str = ""
    gpu: str = ""
    role: str = ""
    instance_type: str = ""
    storage_class: str = ""
    max_wait_s: int = 0
    helper: str = ""


@dataclass(frozen=True)
class Rendered:
    """
    :param text: what the target takes.
    :param notes: what the spec asks for and the target does not do, in sentences.
    :param says_notes: whether ``text`` carries them as comments.
    """

    text: str
    notes: tuple[str, ...]
    says_notes: bool = True


def refuse_unused(place: Place, target: str, used: Collection[str]) -> None:
    """Refuse options that the target has no use for: what they say would be dropped."""
    given: dict[str, Any] = vars(place)
    unused = [option for field, option in OPTIONS.items() if given[field] and field not in used]
    if unused:
        taken = ", ".join(OPTIONS[field] for field in used)
        raise refused(f"{target} has no use for {', '.join(unused)}", f"leave it out; {target} takes {taken}")


def refuse_relative(place: Place) -> None:
    for field in ("code", "inputs"):
        folder: str = vars(place)[field]
        if folder and not folder.startswith("/"):
            raise refused(f"{OPTIONS[field]} {folder!r} is no absolute path", "give it from / on")


def refused(what: str, fix: str) -> TenantFailure:
    return TenantFailure("config", what, safe=SAFE, fix=fix)


def demand(place: Place, target: str, wanted: Mapping[str, str]) -> None:
    """Refuse an export that lacks an option. ``wanted``: what each field is."""
    given: dict[str, Any] = vars(place)
    missing = [f"{OPTIONS[field]} ({what})" for field, what in wanted.items() if not given[field]]
    if missing:
        raise refused(f"a job for {target} needs {', '.join(missing)}", "give it and export again")
