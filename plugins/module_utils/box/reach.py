# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How far checkpoints got, by their names alone: no file is opened.

A step may be saved as several files, so it is told by *series*: files whose names differ only in the step and the
numbers behind it. Of each its highest step counts, and how many files of it that step has; and of earlier steps those
that have more. The weights of step 20 say nothing of its optimizer, which another file holds, the files of four ranks
are no step of eight, and step 20 of one fold is nothing of another.

Where a name tells an epoch before the step, nobody can say whether the step is counted through or within the epoch, so
that epoch stays in the name: step 400 of epoch 2 is stood for by none that is behind it in either, and stands for none
that is ahead of it in either. Where an epoch is a folder with steps in it, a later folder is surely the later.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Iterable, Tuple

from .step_name import Order, counted_series_of, order_of, series_of, split_counts, unit_of

# What the name of a series of folders ends with that are whole once their index is there, however many ranks wrote
# them: a distributed checkpoint writes it last.
WHOLE = "/"
_INDEXED = ("dcp",)
# And what that of a folder's inner steps ends with: in place of the files, how far these got.
INSIDE = "/#"
_QUARANTINE = "quarantine"
# Of a training script whose every file has a name of its own, not all are taken along. Of one that trains ten folds or
# five phases, each is a series whose newest step may lie anywhere, so these are.
MOST = 16

# (name, step, files); a name as ``counted_series_of`` has it, with one of the two endings where that holds
Series = Tuple[str, int, int]


def of_units(units: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """``{step, series: {name: [[step, files]]}, unnamed}`` of checkpoints as ``artifacts.checkpoint_units`` has them.

    ``unnamed`` are those whose names say no step, their numbers as ``*``.
    """
    known = list(units)
    series: dict[str, list[list[int]]] = {}
    for name, step, files in furthest(counted(known)):
        series.setdefault(name, []).append([step, files])
    steps = [unit["step"] for unit in known if unit["step"] is not None]
    unnamed = {series_of(unit["key"]) for unit in known if unit["step"] is None}
    return {"step": max(steps, default=None), "series": series, "unnamed": sorted(unnamed)}


def counted(units: Iterable[dict[str, Any]]) -> tuple[Series, ...]:
    """How many files each step has of each series. What was saved anew, and lies damaged in quarantine, is one."""
    found: set[tuple[str, int, str]] = set()
    for unit in units:
        if unit["step"] is None:
            continue
        if any(entry["loader"] in _INDEXED for entry in unit["files"]):
            name = _name(unit["key"]) + WHOLE
            found.update((name, unit["step"], _outside(entry["path"])) for entry in unit["files"])
            continue
        found.update((_name(entry["path"]), unit["step"], _outside(entry["path"])) for entry in unit["files"])
    files = Counter((name, step) for name, step, _path in found)
    for name, step, path in found:
        inner = order_of(path[len(unit_of(path)) + 1 :])
        if inner and not name.endswith(WHOLE):
            files[name + INSIDE, step] = max(files[name + INSIDE, step], inner[-1])
    return tuple((name, step, number) for (name, step), number in files.items())


def number_of_files(series: Iterable[Series]) -> int:
    return sum(files for name, _step, files in series if not name.endswith(INSIDE))


def name_of_files(name: str) -> str:
    """Without the ending, a path whose numbers are ``*``."""
    return next((name[: -len(ending)] for ending in (INSIDE, WHOLE) if name.endswith(ending)), name)


def words(series: Series) -> str:
    name, step, files = series
    told = f"up to {files} in it" if name.endswith(INSIDE) else f"{files} file(s)"
    return f"{name_of_files(name)} at step {step} ({told})"


def _outside(path: str) -> str:
    """Where it lay before it was put aside as damaged."""
    return "/".join(part for part in path.split("/") if part != _QUARANTINE)


def adds(series: Iterable[Series], there: Iterable[Series]) -> bool:
    """Whether a step has what none that is there stands for."""
    known = list(there)
    return not all(any(covers(one, each) for one in known) for each in series)


def _name(path: str) -> str:
    """What was put aside as damaged is of the series that it was put aside from."""
    return counted_series_of(_outside(path))


def covers(one: Series, other: Series) -> bool:
    """Whether a step stands for another of its series: it is as late, and has as many files."""
    (own_series, own), (series, wanted) = _placed(one), _placed(other)
    as_late = own_series == series and len(own) == len(wanted) and all(map(int.__ge__, own, wanted))
    return as_late and (one[2] >= other[2] or (own != wanted and series.endswith((WHOLE, INSIDE))))


def _placed(one: Series) -> tuple[str, Order]:
    name, step, _files = one
    series, counts = split_counts(name)
    return series, (*counts, step)


def furthest(series: Iterable[Series]) -> tuple[Series, ...]:
    """Those that no other one stands for, sorted."""
    found: dict[str, list[Series]] = {}
    # The latest first: none stands for one that comes before it.
    for each in sorted(set(series), key=lambda one: (_placed(one)[1], one), reverse=True):
        of_it = found.setdefault(_placed(each)[0], [])
        if not any(covers(one, each) for one in of_it):
            of_it.append(each)
    return tuple(sorted(each for of_it in found.values() for each in of_it))
