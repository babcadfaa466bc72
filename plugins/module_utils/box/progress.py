# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How far a cell is: the ends of its metrics file, which the trainer may be appending to right now."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from . import records

_END = 64 * 1024


@dataclass(frozen=True)
class Progress:
    """``rate`` is in steps per second; None means that nothing says."""

    step: int | None = None
    steps: int | None = None
    epoch: float | None = None
    loss: float | None = None
    rate: float | None = None
    resumed_from_step: int | None = None

    @property
    def eta_s(self) -> float | None:
        return eta_s(self.step, self.steps, self.rate)


def eta_s(step: int | None, steps: int | None, rate: float | None) -> float | None:
    """Seconds to the last step; None while one of the three is unknown."""
    if step is None or steps is None or not rate:
        return None
    return round(max(0, steps - step) / rate, 1)


def read_progress(path: str, running_s: float | None = None, observed: float | None = None) -> Progress:
    """Progress from the metrics file at ``path``. When no line has a time, the rate is the ``observed`` one, else over
    ``running_s``, the age of the trainer."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(_END)
            size = os.fstat(stream.fileno()).st_size
            stream.seek(max(0, size - _END))
            tail = stream.read(_END)
    except OSError:
        return Progress()
    return progress_of(parse_lines(head), parse_lines(tail, cut=size > _END), running_s, observed)


def parse_lines(data: bytes, cut: bool = False) -> list[dict[str, Any]]:
    """The whole JSON objects, one a line. Torn and foreign lines are skipped; ``cut`` drops the first one."""
    found = []
    for line in data.split(b"\n")[1 if cut else 0 :]:
        try:
            value = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def progress_of(
    head: list[dict[str, Any]],
    tail: list[dict[str, Any]],
    running_s: float | None = None,
    observed: float | None = None,
) -> Progress:
    """Progress from the first and the last lines of a metrics file."""
    resumed = _last(head + tail, "resumed_from")
    steps = _last(tail, "steps") or _last(head, "steps")
    step = _last(tail, "step")
    loss = next((records.finite(line["loss"]) for line in reversed(tail) if "loss" in line), None)
    return Progress(
        step=None if step is None else int(step),
        steps=None if steps is None else int(steps),
        epoch=_last(tail, "epoch"),
        loss=loss,
        rate=_rate(tail) or observed or _rate_over(step, resumed, running_s),
        resumed_from_step=None if resumed is None else int(resumed),
    )


def _rate(lines: list[dict[str, Any]]) -> float | None:
    """Steps per second between the first and the last line that carry both a step and the trainer's own clock."""
    timed = [(records.finite(line.get("trained_s")), records.finite(line.get("step"))) for line in lines]
    known = [(clock, step) for clock, step in timed if clock is not None and step is not None]
    if len(known) < 2 or known[-1][0] <= known[0][0] or known[-1][1] <= known[0][1]:
        return None
    return round((known[-1][1] - known[0][1]) / (known[-1][0] - known[0][0]), 6)


def _rate_over(step: float | None, resumed: float | None, running_s: float | None) -> float | None:
    if step is None or not running_s or step <= (resumed or 0):
        return None
    return round((step - (resumed or 0)) / running_s, 6)


def _last(lines: list[dict[str, Any]], key: str) -> float | None:
    numbers = (records.finite(line.get(key)) for line in reversed(lines))
    return next((number for number in numbers if number is not None), None)
