# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The step that the path of a checkpoint names."""

from __future__ import annotations

import re

_WORDS = "step|checkpoint|ckpt|iter|iteration"
_STEP, _COUNTED = (
    re.compile(rf"(?:^|[^0-9A-Za-z])(?:{words})[-_=]?(\d+)", re.IGNORECASE) for words in (f"{_WORDS}|epoch", _WORDS)
)
_NUMBER = re.compile(r"\d+")


def step_in(path: str) -> int | None:
    """The last number behind such a word, None when there is none."""
    found = _STEP.findall(path)
    return int(found[-1]) if found else None


def training_step_in(path: str) -> int | None:
    """As :func:`step_in`, but an epoch is none: what is compared with the steps of the training must be counted so."""
    found = _COUNTED.findall(path)
    return int(found[-1]) if found else None


def unit_of(path: str) -> str:
    """The leading part of ``path`` up to the first component that names a step; the whole path if none does."""
    parts = path.split("/")
    for index, part in enumerate(parts):
        if step_in(part) is not None:
            return "/".join(parts[: index + 1])
    return path


def without_numbers(path: str) -> str:
    """One name for all files that differ in their numbers only."""
    return _NUMBER.sub("*", path)
