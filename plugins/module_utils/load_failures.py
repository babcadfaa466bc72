# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What loaders say of a file, and what a broken promise is called."""

from __future__ import annotations

import math
from typing import Any, Iterable, Mapping, NamedTuple, Sequence


class CheckFailed(Exception):
    """The file is not what it should be; the text completes "<path>: …"."""


class Inside(NamedTuple):
    """What a checkpoint holds: ``shapes`` by the tensor's name, top-level ``keys``, and whether a run can go on."""

    shapes: Mapping[str, Sequence[int]]
    keys: Sequence[str]
    step: int | None
    resume_state: bool


def need(name: str, fix: str) -> Any:
    """The module ``name``, or CheckFailed saying how to get it."""
    try:
        return __import__(name)
    except ImportError as error:
        raise CheckFailed(f"cannot be loaded here: {name} is not installed. Fix: {fix}") from error


def refuse_broken_promises(inside: Inside, expect: Mapping[str, Any]) -> None:
    """CheckFailed for the first promise about what is inside that is not kept."""
    wanted = int(expect.get("min_tensors", 1))
    if len(inside.shapes) < wanted:
        raise CheckFailed(f"holds {len(inside.shapes)} tensors, at least {wanted} were expected")
    missing = [str(key) for key in expect.get("required_keys") or [] if str(key) not in inside.keys]
    if missing:
        raise CheckFailed(f"lacks the keys {', '.join(missing)}; it has {', '.join(sorted(inside.keys)[:20])}")
    for name, shape in (expect.get("shapes") or {}).items():
        found = inside.shapes.get(str(name))
        if found is None:
            near = ", ".join(sorted(inside.shapes)[:10])
            raise CheckFailed(f"lacks the tensor {name}; it has {near}")
        if list(found) != [int(size) for size in shape]:
            raise CheckFailed(f"has the tensor {name} in shape {list(found)}, {list(shape)} was expected")


def refuse_infinite(names: Iterable[str], of: int) -> None:
    """CheckFailed when there are names of tensors that hold NaN or infinity."""
    infinite = sorted(names)
    if infinite:
        shown = ", ".join(infinite[:3])
        raise CheckFailed(f"holds NaN or infinity in {len(infinite)} of {of} tensors ({shown})")


def finite_number(value: Any) -> bool:
    """Whether a value from JSON is a finite number, or a list of such."""
    if isinstance(value, list):
        return bool(value) and all(finite_number(item) for item in value)
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
