# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The step that the path of a checkpoint names, and the series that it is a step of."""

from __future__ import annotations

import re

_WORDS = "step|checkpoint|ckpt|iter|iteration"
_STEP, _COUNTED = (
    re.compile(rf"(?:^|[^0-9A-Za-z])(?:{words})[-_=]?(\d+)", re.IGNORECASE) for words in (f"{_WORDS}|epoch", _WORDS)
)
# Parts of a run that a script trains one after the other, each with a count of its own.
_PARTS = "fold|phase|stage|seed|split|task|trial|member|version"
_NUMBER = re.compile(rf"(?:{_PARTS})[-_=]?\d+|\d+", re.IGNORECASE)
# As the callbacks of Lightning write what they measured, which differs in each file.
_MEASURED = re.compile(r"((?:loss|acc|accuracy)=-?)\d+\.\d+", re.IGNORECASE)


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


def series_of(path: str) -> str:
    """One name, with ``*``, for all files of which the one of the later step stands for those before it.

    The step and all numbers behind it are ``*``: ranks, shards, losses, times. What stands before it may be a fold, a
    phase or a model that counts its steps by itself, and so may such a word say anywhere: a later step of fold 3 stands
    for nothing of fold 4. In doubt a file is of a series of its own. That costs the transfer of one file too many; to
    take two series for one costs the only copy of the one that is behind.
    """
    steps = list(_STEP.finditer(unit_of(path)))
    if not steps:
        return _starred(path)
    start = steps[-1].start(1)
    before = _STEP.sub(lambda found: found[0][: -len(found[1])] + "*", path[:start])
    return _MEASURED.sub(r"\1*", before) + _starred(path[start:])


def _starred(text: str) -> str:
    return _NUMBER.sub(lambda found: "*" if found[0].isdigit() else found[0], text)
