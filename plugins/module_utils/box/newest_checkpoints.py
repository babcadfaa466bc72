# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which checkpoints of a cell that has not finished come home: the newest sound one of any attempt, with all its files,
and the best one that it names.

A step may be saved as several files. While the newest is still being written, files of it are missing that an earlier
step has: then that comes too, whole, so that at home there is a step to go on from.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Iterator

from . import artifacts, checkpoint_manifest, reach, run_record, sharded
from .layout import AttemptPaths
from .step_name import Order, newest_first, order_of, series_of
from .structure import SHARDED_LOADERS


@dataclass(frozen=True)
class _Step:
    """The files that one attempt saved of one step, and how many there are of each series."""

    paths: AttemptPaths
    order: Order
    units: tuple[dict[str, Any], ...]

    @property
    def step(self) -> int:
        return self.order[-1]

    @cached_property
    def series(self) -> tuple[reach.Series, ...]:
        return reach.counted(self.units)

    @property
    def files(self) -> int:
        return reach.number_of_files(self.series)

    def sound(self, share: bool) -> _Step:
        return _Step(self.paths, self.order, tuple(artifacts.sound_ones(self.paths.output, self.units, share)))


def to_bring(run: dict[str, Any], attempts: list[AttemptPaths]) -> list[dict[str, Any]]:
    """Hashed artifact lines, each file once, their paths relative to the run's folder."""
    share = run_record.is_part(run)
    units = [(paths, artifacts.checkpoint_units(paths.output, run["artifacts"])) for paths in attempts]
    steps = _steps(units)
    chosen = list(_newest(steps, share))
    if chosen:
        chosen += _best_beside(steps, chosen[0], share)
        pairs = [(each.paths, unit) for each in chosen for unit in each.units]
    else:
        pairs = list(_unnamed(units, share))
    lines = [
        dict(line, path=f"{paths.relative}/out/{line['path']}") for paths, unit in pairs for line in unit["artifacts"]
    ]
    return list({line["path"]: line for line in lines}.values())


def _steps(units: list[tuple[AttemptPaths, list[dict[str, Any]]]]) -> list[_Step]:
    """Newest first; of one step the attempt that has most files of it, then the later one."""
    found = []
    for paths, known in units:
        by_order: dict[Order, list[dict[str, Any]]] = {}
        for unit in known:
            if unit["step"] is not None:
                by_order.setdefault(order_of(unit["key"]), []).append(unit)
        found += [_Step(paths, order, tuple(of_it)) for order, of_it in by_order.items()]
    place = {order: number for number, order in enumerate(newest_first(each.order for each in found))}
    return sorted(found, key=lambda each: (place[each.order], -each.files, -each.paths.number))


def _newest(steps: list[_Step], share: bool) -> Iterator[_Step]:
    """The newest, and earlier ones that have what the later ones lack."""
    there: list[reach.Series] = []
    taken = 0
    for each in steps:
        if taken == reach.MOST or not reach.adds(each.series, there):
            continue
        found = each.sound(share)
        if reach.adds(found.series, there):
            there += found.series
            taken += 1
            yield found


def _best_beside(steps: list[_Step], newest: _Step, share: bool) -> list[_Step]:
    """The best checkpoint so far, if it is another than the newest: people want it, and a new box must keep it."""
    for unit in newest.units:
        best = checkpoint_manifest.best_step(os.path.join(newest.paths.output, unit["key"]))
        if best is None or best == newest.step:
            continue
        folder = os.path.dirname(unit["key"])
        for each in sorted(steps, key=lambda one: -one.paths.number):
            of_it = tuple(one for one in each.units if each.step == best and os.path.dirname(one["key"]) == folder)
            found = _Step(each.paths, each.order, of_it).sound(share)
            if found.units:
                return [found]
    return []


def _unnamed(
    units: list[tuple[AttemptPaths, list[dict[str, Any]]]], share: bool
) -> Iterator[tuple[AttemptPaths, dict[str, Any]]]:
    """Where no name says a step: of the last attempt that has any, the newest file of each name."""
    for paths, known in reversed(units):
        names: set[str] = set()
        for unit in known:
            name = series_of(unit["key"])
            if name in names or len(names) == reach.MOST or (names and _is_piece(unit)):
                continue
            for found in artifacts.sound_ones(paths.output, [unit], share):
                names.add(name)
                yield paths, found
        if names:
            return


def _is_piece(unit: dict[str, Any]) -> bool:
    """Whether it is of a folder of shards, without the file that speaks for that."""
    sharded_ones = [entry for entry in unit["files"] if entry["loader"] in SHARDED_LOADERS]
    return bool(sharded_ones) and not any(sharded.is_head(entry["path"], entry["loader"]) for entry in sharded_ones)
