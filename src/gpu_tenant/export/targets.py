# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The targets by name, and one way to render for any of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gpu_tenant.export import kubernetes, sagemaker, skypilot, slurm
from gpu_tenant.export.place import Place, Rendered, refuse_relative, refuse_unused, refused

_Render = Callable[[Mapping[str, Any], Place], Rendered]
TARGETS: dict[str, tuple[_Render, tuple[str, ...]]] = {
    target.NAME: (target.render, target.USES) for target in (skypilot, sagemaker, slurm, kubernetes)
}


def render(target: str, spec: Mapping[str, Any], place: Place, cell: str = "") -> Rendered:
    """The run for ``target``, or one cell of it."""
    renderer, used = TARGETS[target]
    refuse_unused(place, target, used)
    refuse_relative(place)
    return renderer(_only(spec, cell) if cell else spec, place)


def _only(spec: Mapping[str, Any], cell: str) -> dict[str, Any]:
    chosen = [entry for entry in spec["cells"] if entry["id"] == cell]
    if not chosen:
        names = ", ".join(entry["id"] for entry in spec["cells"])
        raise refused(f"run {spec['id']} has no cell {cell!r}", f"it has {names}")
    return {**spec, "cells": chosen}
