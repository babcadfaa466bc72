# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Where things go in the drawings of a report: numbers only, no text of a stranger becomes markup here. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import records

WIDTH, ROW, NAMES = 960, 30, 190
CURVE_WIDTH, CURVE_HEIGHT, MARGIN = 460, 200, 44
_TICKS = 4


def timeline(machines: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A row per machine: bars for the times in a state, marks for what happened. Empty when no time is known."""
    moments = [_epoch(event["at"]) for event in events]
    for machine in machines:
        moments += [_epoch(one[end]) for one in machine["intervals"] for end in ("since", "until")]
    if not moments:
        return {}
    begin, end = min(moments), max(moments)
    span = max(end - begin, 1.0)

    def x(moment: str) -> float:
        return round(NAMES + (_epoch(moment) - begin) / span * (WIDTH - NAMES - 20), 1)

    rows = []
    for number, name in enumerate(_names(machines, events)):
        bars = [_bar(one, x) for machine in machines if _name(machine) == name for one in machine["intervals"]]
        marks = [{**event, "x": x(event["at"])} for event in events if _name(event) == name]
        title = f"{name[0]} g{name[1]}" if name[1] else name[0]
        rows.append({"name": title, "y": number * ROW, "bars": bars, "marks": marks})
    ticks = [records.utc_text(_moment(begin + span * number / _TICKS)) for number in range(_TICKS + 1)]
    return {
        "width": WIDTH,
        "height": len(rows) * ROW + 28,
        "rows": rows,
        "ticks": [{"x": x(tick), "text": tick} for tick in ticks],
    }


def _names(machines: Iterable[Mapping[str, Any]], events: Iterable[Mapping[str, Any]]) -> list[tuple[str, int]]:
    return sorted({_name(each) for each in (*machines, *events)})


def _name(thing: Mapping[str, Any]) -> tuple[str, int]:
    return str(thing["box"]), int(thing["generation"])


def _bar(interval: Mapping[str, Any], x: Callable[[str], float]) -> dict[str, Any]:
    left = x(interval["since"])
    width = max(round(x(interval["until"]) - left, 1), 1.0)
    return {**interval, "x": left, "width": width}


def _epoch(moment: str) -> float:
    return records.parse_utc(moment).timestamp()


def _moment(epoch: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(epoch, datetime.UTC)


def losses(curves: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One drawing per run and cell, with a line for each attempt in it."""
    grouped: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for curve in curves:
        grouped.setdefault((curve["run"], curve["cell"]), []).append(curve)
    return [_losses_of(key, group) for key, group in sorted(grouped.items())]


def _losses_of(key: tuple[str, str], group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    steps = [point[0] for curve in group for point in curve["points"]]
    values = [point[1] for curve in group for point in curve["points"]]
    across, up = (min(steps), max(steps)), (min(values), max(values))

    def place(point: Sequence[float]) -> str:
        x = MARGIN + _share(point[0], across) * (CURVE_WIDTH - MARGIN - 10)
        y = 10 + (1.0 - _share(point[1], up)) * (CURVE_HEIGHT - 40)
        return f"{x:.1f},{y:.1f}"

    who = ("box", "generation", "attempt")
    lines = [{**{name: curve[name] for name in who}, "path": " ".join(map(place, curve["points"]))} for curve in group]
    return {
        "run": key[0],
        "cell": key[1],
        "width": CURVE_WIDTH,
        "height": CURVE_HEIGHT,
        "margin": MARGIN,
        "lines": lines,
        "across": [f"{step:g}" for step in across],
        "up": [f"{value:.4g}" for value in up],
    }


def _share(value: float, limits: tuple[float, float]) -> float:
    """Where ``value`` lies between the limits, 0 to 1; halves first, so that two huge numbers do not overflow."""
    low, high = limits
    span = high / 2 - low / 2
    return (value / 2 - low / 2) / span if span > 0 else 0.5
