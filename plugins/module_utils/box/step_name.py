# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The step that the path of a checkpoint names, and the series that it is a step of."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Iterable, Tuple

# The numbers behind the words of a name in their order, the step last: (2, 400) of ``epoch_2_step_400.pt``.
Order = Tuple[int, ...]

_WORDS = "step|checkpoint|ckpt|iter|iteration"
_STEP, _COUNTED = (
    re.compile(rf"(?:^|[^0-9A-Za-z])(?:{words})[-_=]?(\d+)", re.IGNORECASE) for words in (f"{_WORDS}|epoch", _WORDS)
)
# Parts of a run that a script trains one after the other, each with a count of its own.
_PARTS = "fold|phase|stage|seed|split|task|trial|member|version"
_NUMBER = re.compile(rf"(?:{_PARTS})[-_=]?\d+|\d+", re.IGNORECASE)
# As the callbacks of Lightning write what they measured, which differs in each file. Only of a loss and an accuracy may
# it be a whole number: ``map=3`` may be a map.
_VALUE = r"(?:\d+\.\d+(?:e[-+]?\d+)?|\d+e[-+]?\d+|nan|inf)"
_METRICS = (
    "f1|auc|auroc|ap|map|iou|miou|dice|bleu|rouge[12l]?|[wc]er|mae|r?mse|ppl|perplexity|psnr|ssim|fid|r2|score|reward"
    "|error"
)
_MEASURED = re.compile(
    rf"((?:loss|acc|accuracy)(?:_epoch|_step)?=)-?(?:{_VALUE}|\d+)(?![0-9a-z])"
    rf"|((?<![0-9a-z])(?:{_METRICS})(?:_epoch|_step)?=)-?{_VALUE}(?![0-9a-z])",
    re.IGNORECASE,
)


def step_in(path: str) -> int | None:
    """The last number behind such a word, None when there is none."""
    found = _words_in(_STEP, path)
    return int(found[-1][1]) if found else None


def training_step_in(path: str) -> int | None:
    """As :func:`step_in`, but an epoch is none: what is compared with the steps of the training must be counted so."""
    found = _words_in(_COUNTED, path)
    return int(found[-1][1]) if found else None


def _words_in(words: re.Pattern[str], text: str) -> list[re.Match[str]]:
    """What was measured is no count (``train_loss_step=0.41``), unless nothing else in the name is one."""
    hidden = _MEASURED.sub(lambda found: "*" * len(found[0]), text)
    return list(words.finditer(hidden)) or list(words.finditer(text))


def order_of(path: str) -> Order:
    """Empty when the path names no step."""
    return tuple(int(found[1]) for found in _words_in(_STEP, unit_of(path)))


def newest_first(orders: Iterable[Order]) -> list[Order]:
    """By step; where an epoch is told before it by epoch first, since the step may be counted within that.

    The step may as well be counted through, and the epochs begin anew: then the newest by step is not the first. A
    caller that must have it takes all that no other one stands for (see ``reach``), both of these among them.
    """
    found = set(orders)
    highest = {len(order): max(one[-1] for one in found if len(one) == len(order)) for order in found}
    return sorted(found, key=lambda order: (highest[len(order)], -len(order), order), reverse=True)


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
    return split_counts(counted_series_of(path))[0]


def counted_series_of(path: str) -> str:
    """As :func:`series_of`, with the numbers behind the words before the step: of an epoch the step may be a count,
    that begins anew with the next one."""
    steps = _words_in(_STEP, unit_of(path))
    if not steps:
        return _starred(path)
    start = steps[-1].start(1)
    before = _MEASURED.sub(lambda found: (found[1] or found[2]) + "*", path[:start])
    return before + _starred(path[start:])


@lru_cache(maxsize=4096)
def split_counts(name: str) -> tuple[str, Order]:
    """The series, and the numbers that :func:`counted_series_of` left in its name."""
    counts = tuple(int(found[1]) for found in _STEP.finditer(name))
    return _STEP.sub(lambda found: found[0][: -len(found[1])] + "*", name), counts


def _starred(text: str) -> str:
    return _NUMBER.sub(lambda found: "*" if found[0].isdigit() else found[0], text)
