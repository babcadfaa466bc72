# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The steps of a drilled attempt, all of them, as lines like those of the metrics: from its metrics file, else from
where the run says that its progress can be read (``progress`` of the run spec), which the heartbeat follows too."""

from __future__ import annotations

import itertools
import math
from typing import Any

from .drill_verdict import steps_of
from .layout import AttemptPaths
from .progress import parse_lines
from .progress_source import FIND_EVERY_S, METRICS, Reached, open_source


class Steps:
    """Looked at again and again; what was read is kept.

    :param wanted: ``progress`` of the run record.
    :param earlier: those of the first try, where this is the second: lines of different places cannot be compared.
    """

    def __init__(self, paths: AttemptPaths, wanted: dict[str, Any], earlier: Steps | None = None) -> None:
        self._metrics = _Follower(paths.metrics)
        kind = wanted["source"] if earlier is None else earlier.source
        # A drill looks often, and each look looks for event files: the first steps of a new one must not pass unread.
        hurry = itertools.count()
        kept = earlier.kept() if earlier is not None else {}
        self._source = (
            None if kind == METRICS else open_source(paths, wanted, kept, clock=lambda: next(hurry) * FIND_EVERY_S)
        )
        self._kind = kind
        self._told: dict[int, dict[str, Any]] = {}

    @property
    def source(self) -> str:
        """Where the steps are from: the metrics file, if it has any."""
        return METRICS if steps_of(self._metrics.known) else self._kind

    @property
    def places(self) -> list[str]:
        """Where a step is looked for."""
        return [METRICS] if self._source is None else [METRICS, self._kind]

    @property
    def problem(self) -> str:
        return self._source.problem if self._source is not None else ""

    def lines(self) -> list[dict[str, Any]]:
        metrics = self._metrics.lines()
        if self._source is None or steps_of(metrics):
            return metrics
        self._source.look()
        for reached in self._source.told:
            self._take(reached)
        return metrics + list(self._told.values())

    def kept(self) -> dict[str, Any]:
        """The scalar that was found to be the loss, so that the second try is not compared by another."""
        tag = self._source.kept().get("tag") if self._source is not None else None
        return {"tag": tag} if tag else {}

    def _take(self, reached: Reached) -> None:
        """A step that is told again, as by a progress bar, has the last loss that was told for it."""
        if reached.step is None:
            return
        line = self._told.setdefault(reached.step, {"step": reached.step})
        if reached.loss is not None:
            line["loss"] = reached.loss
        if reached.epoch is not None and math.isfinite(reached.epoch):
            line["epoch"] = math.floor(reached.epoch)


class _Follower:
    """The whole lines of a growing metrics file, each read once."""

    def __init__(self, path: str) -> None:
        self._path, self._position, self._rest = path, 0, b""
        self.known: list[dict[str, Any]] = []

    def lines(self) -> list[dict[str, Any]]:
        try:
            with open(self._path, "rb") as stream:
                stream.seek(self._position)
                data = stream.read()
        except OSError:
            return self.known
        self._position += len(data)
        whole, newline, self._rest = (self._rest + data).rpartition(b"\n")
        self.known += parse_lines(whole) if newline else []
        return self.known
