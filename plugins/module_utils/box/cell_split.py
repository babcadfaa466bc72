# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Share the cells of a run among boxes: deterministic, and level in cost."""

from __future__ import annotations

import math
from typing import Any


def split_cells(cells: Any, boxes: Any, weights: Any = None) -> dict[str, list[Any]]:
    """Each cell on exactly one box, so that the boxes finish at about the same time.

    The dearest cell goes first, each to the box that would then be done soonest; ties go to the box named first. No box
    is done later than ``(total + boxes * dearest) / sum of weights``.

    :param cells: ids, or mappings with ``id`` and, if known, ``cost`` (any unit, default 1).
    :param boxes: names of boxes; their order decides ties only.
    :param weights: speed of each box (default 1); a box of weight 0 gets nothing.
    :returns: for every box its cells, in the order of ``cells``.
    :raises ValueError: names what is wrong.
    """
    names = _unique("box", [str(name) for name in _sequence("boxes", boxes)])
    speeds = _speeds(names, {} if weights is None else weights)
    known = [_cell(cell) for cell in _sequence("cells", cells)]
    _unique("cell", [identity for identity, _cost in known])
    working = [name for name in names if speeds[name] > 0]
    if known and not working:
        raise ValueError("there are cells but no box with a weight above 0")
    load = dict.fromkeys(names, 0.0)
    place: dict[str, str] = {}
    for identity, cost in sorted(known, key=lambda pair: (-pair[1], pair[0])):
        chosen = min(working, key=lambda name: ((load[name] + cost) / speeds[name], names.index(name)))
        load[chosen] += cost
        place[identity] = chosen
    shares: dict[str, list[Any]] = {name: [] for name in names}
    for cell, (identity, _cost) in zip(cells, known):
        shares[place[identity]].append(cell)
    return shares


def _cell(cell: Any) -> tuple[str, float]:
    if not isinstance(cell, dict):
        return str(cell), 1.0
    if "id" not in cell:
        raise ValueError(f"cell {cell!r} has no id")
    return str(cell["id"]), _number(f"cost of cell {cell['id']}", cell.get("cost", 1))


def _speeds(names: list[str], weights: Any) -> dict[str, float]:
    if not isinstance(weights, dict):
        raise ValueError(f"weights: a mapping from box to speed is wanted, found {type(weights).__name__}")
    strangers = sorted({str(name) for name in weights} - set(names))
    if strangers:
        raise ValueError(f"weights name boxes that are not there: {', '.join(strangers)}")
    return {name: _number(f"weight of {name}", weights.get(name, 1)) for name in names}


def _sequence(name: str, value: Any) -> list[Any]:
    if isinstance(value, (str, bytes, dict)) or not hasattr(value, "__iter__"):
        raise ValueError(f"{name}: a list is wanted, found {type(value).__name__}")
    return list(value)


def _unique(kind: str, names: list[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{kind} named twice: {', '.join(twice)}")
    return names


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number) or number < 0:
        raise ValueError(f"{name} is {value!r}: a number of 0 or more is wanted")
    return number
