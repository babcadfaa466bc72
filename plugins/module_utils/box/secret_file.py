# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The secrets of a run: taken from stdin, kept in one file that its user alone reads, on a disk of this machine."""

from __future__ import annotations

import os
from typing import Any

from . import capability, control, mounts, records, run_record
from .layout import Layout
from .refusal import ENVIRONMENT, USAGE, Refused

_MODE = 0o600


def deliver(layout: Layout, caller: control.Caller, value: object) -> dict[str, Any]:
    """Write the file of an order ``{path, values, shared, prove}`` unless it says so already. Names are told, never
    values. What ``prove`` orders (see ``capability``) is asked of the file that stands then, and never in a check.

    :raises Refused: ENVIRONMENT when the file would lie where other machines can read it.
    """
    path, values, shared = _checked(value)
    problem = place_problem(path, shared)
    if problem:
        fix = "set deploy_secrets_dir to a folder on a disk of the instance itself"
        raise Refused(ENVIRONMENT, f"the secrets are not written: {problem}", fix)
    with control.box(layout, caller):
        before = _known(path)
        after = {name: _trace(text) for name, text in sorted(values.items())}
        if before != after and not caller.check:
            control.refuse_sealed(layout, "secrets")
            text = "".join(f"{name}={text}\n" for name, text in sorted(values.items()))
            records.write_bytes(path, text.encode("utf-8"), _MODE)
    names = sorted(name for name in {**before, **after} if before.get(name) != after.get(name))
    # Whose value is new is told by its name alone.
    told = control.outcome({"secrets": sorted(before)}, {"secrets": sorted(after)}, path=path)
    prove = value.get("prove") if isinstance(value, dict) and not caller.check else None
    proven = capability.prove_all(layout.root, path, prove) if prove else []
    return dict(told, changed=bool(names), renewed=names, secrets=proven)


def _checked(value: object) -> tuple[str, dict[str, str], list[str]]:
    order = value if isinstance(value, dict) else {}
    path, values, shared = order.get("path"), order.get("values"), order.get("shared") or []
    if not isinstance(path, str) or not os.path.isabs(path) or not isinstance(values, dict):
        raise Refused(USAGE, "the order of secrets needs an absolute path and values")
    for name, text in values.items():
        if not run_record.is_variable(name) or not run_record.is_value(text):
            raise Refused(USAGE, f"the secret {name!a} cannot be a line of a file")
    return path, {str(name): str(text) for name, text in values.items()}, [str(each) for each in shared if each]


def place_problem(path: str, shared: list[str]) -> str:
    """Why ``path`` is no place for a secret; empty when it is one. ``shared`` are folders that other machines see."""
    real = mounts.nearest(path)
    point, kind = mounts.mount_of(real)
    if mounts.is_shared(kind):
        return f"{path} lies on {point}, a file system of type {kind} that other machines see"
    for folder in shared:
        there = os.path.realpath(folder)
        if real == there or real.startswith(there.rstrip("/") + "/"):
            return f"{path} lies in {folder}, which several boxes see"
    return ""


def _known(path: str) -> dict[str, str]:
    """What the file holds now, as traces; a file that others can read counts as none."""
    try:
        return {name: _trace(text) for name, text in run_record.read_env_file(path).items()}
    except Refused:
        return {}


def _trace(text: str) -> str:
    return records.digest(text)
