# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Where a trainer tells how far it is (``progress`` of the run spec): metrics file, TensorBoard's event files, or log.

A source is looked at again and again, goes on from where its last look ended, and can be put into a record and taken up
again by the next supervisor.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import stat
import time
from dataclasses import dataclass, replace
from typing import Any, Callable

from . import log_pattern, progress, records, run_log, tfevents
from .layout import AttemptPaths
from .names import UnsafeName, check_relative_path

METRICS, TENSORBOARD, REGEX = "metrics", "tensorboard", "regex"
SOURCES = (METRICS, TENSORBOARD, REGEX)
# Keys of each source, with their defaults; every source knows total_steps.
_KEYS: dict[str, dict[str, Any]] = {
    METRICS: {},
    TENSORBOARD: {"logdir": ".", "tag": ""},
    REGEX: {"pattern": ""},
}
LONGEST_TAG = 200
FIND_EVERY_S, FIND_FIRST_S = 30.0, 3.0
MOST_FILES = 64
MOST_ENTRIES = 20000
# A pattern that is too slow is tried again after a pause that doubles, in seconds.
LEAST_REST_S, MOST_REST_S = 30.0, 1800.0
_WORD = re.compile(r"[a-z0-9]+")
_PLAIN_LOSS = ("loss", "train/loss", "train_loss", "loss/train", "training_loss", "training/loss")
_NOT_TRAINING = frozenset(["val", "valid", "validation", "eval", "evaluation", "test", "dev"])


class BadProgress(ValueError):
    """``key`` of the mapping is wrong; the text says how."""

    def __init__(self, key: str, what: str) -> None:
        super().__init__(what)
        self.key = key


@dataclass(frozen=True)
class Reached:
    """What a source says; None where it does not."""

    step: int | None = None
    steps: int | None = None
    epoch: float | None = None
    loss: float | None = None


def check(value: object) -> dict[str, Any]:
    """The ``progress`` mapping with every key of its source. :raises BadProgress: it cannot be used."""
    if not isinstance(value, dict):
        raise BadProgress("", "'progress' is a mapping such as {source: tensorboard}")
    source = value.get("source", METRICS)
    if source not in SOURCES:
        raise BadProgress("source", f"progress.source {source!r} is none of {', '.join(SOURCES)}")
    known = {"source": source, **_KEYS[source], "total_steps": None}
    unknown = sorted(str(key) for key in set(value) - set(known))
    if unknown:
        what = f"progress with source {source} has the unknown key {unknown[0]!r}; known are {', '.join(known)}"
        raise BadProgress(unknown[0], what)
    whole = {**known, **{key: each for key, each in value.items() if each is not None}}
    _check_total(whole["total_steps"])
    if source == TENSORBOARD:
        _check_tensorboard(whole)
    if source == REGEX:
        try:
            log_pattern.compiled(whole["pattern"])
        except log_pattern.BadPattern as error:
            raise BadProgress("pattern", f"progress.pattern cannot be used: {error}") from error
    return whole


def _check_total(total: object) -> None:
    if total is not None and not (records.is_count(total) and total > 0):
        raise BadProgress("total_steps", f"progress.total_steps is a number of steps from 1, not {total!r}")


def _check_tensorboard(whole: dict[str, Any]) -> None:
    if not isinstance(whole["tag"], str) or len(whole["tag"]) > LONGEST_TAG:
        raise BadProgress("tag", f"progress.tag is the name of a scalar, at most {LONGEST_TAG} characters")
    if whole["logdir"] == ".":
        return
    try:
        check_relative_path(whole["logdir"])
    except UnsafeName as error:
        raise BadProgress("logdir", f"progress.logdir is a folder below TENANT_OUTPUT_DIR: {error}") from error


class Source:
    """Base of the three. ``reached`` and ``problem`` are what the last look left; ``told`` has every step that was new
    to it, in their order, for who wants more than the last. The metrics file has a reader of its own for that."""

    def __init__(self, wanted: dict[str, Any], kept: dict[str, Any], clock: Callable[[], float]) -> None:
        self._clock = clock
        self.reached = Reached(**{key: kept.get(key) for key in ("step", "steps", "epoch", "loss")})
        self.problem = ""
        self.told: list[Reached] = []
        self._total: int | None = wanted["total_steps"]

    def look(self, last: bool = False) -> None:
        """Read what is new. ``last``: the trainer has ended, so an unfinished line is one too."""
        self.told = []
        try:
            self._look(last)
        except OSError as error:
            self.problem = f"{error.filename or 'its source'} cannot be read: {error.strerror}"
        if self._total is not None and self.reached.steps is None:
            self.reached = replace(self.reached, steps=self._total)

    def _look(self, last: bool) -> None:
        raise NotImplementedError

    def kept(self) -> dict[str, Any]:
        """What the next supervisor needs to go on from here."""
        return {}


class Metrics(Source):
    """JSON lines in ``TENANT_METRICS``; their reader looks at both ends of the file, whatever its size."""

    def __init__(
        self, paths: AttemptPaths, wanted: dict[str, Any], kept: dict[str, Any], clock: Callable[[], float]
    ) -> None:
        super().__init__(wanted, kept, clock)
        self._path = paths.metrics
        self._seen: tuple[int, int] | None = None

    def _look(self, last: bool) -> None:
        try:
            info = os.stat(self._path)
        except FileNotFoundError:
            return
        if (info.st_size, info.st_mtime_ns) == self._seen:
            return
        self._seen = (info.st_size, info.st_mtime_ns)
        found = progress.read_progress(self._path)
        self.reached = Reached(found.step, found.steps, found.epoch, found.loss)


class EventFiles(Source):
    """TensorBoard's event files below a folder; new ones are found while the trainer runs."""

    def __init__(
        self, paths: AttemptPaths, wanted: dict[str, Any], kept: dict[str, Any], clock: Callable[[], float]
    ) -> None:
        super().__init__(wanted, kept, clock)
        self._folder = os.path.normpath(os.path.join(paths.output, wanted["logdir"]))
        self._base = paths.folder
        self._wanted_tag: str = wanted["tag"]
        self._tag: str = wanted["tag"] or str(kept.get("tag") or "")
        offsets = kept.get("offsets")
        self._offsets = {str(name): int(at) for name, at in (offsets if isinstance(offsets, dict) else {}).items()}
        self._find_at = 0.0

    def _look(self, last: bool) -> None:
        if last or self._clock() >= self._find_at:
            newest = event_files(self._folder)
            self._find_at = self._clock() + (FIND_EVERY_S if newest else FIND_FIRST_S)
            self._offsets = {name: self._offsets.get(name, 0) for name in (self._name(path) for path in newest)}
        problems = []
        found: list[tfevents.Scalar] = []
        # The newest file comes last, so that its words count: a trainer that goes back to a checkpoint opens a new one.
        for name, offset in reversed(list(self._offsets.items())):
            path = os.path.join(self._base, name)
            size = self._size(path)
            if size in (None, offset):
                continue
            seen = tfevents.look(path, offset)
            self._offsets[name] = seen.offset
            found += seen.scalars
            if seen.problem:
                problems.append(f"{name}: {seen.problem}")
            elif last and size is not None and seen.offset < size:
                problems.append(f"{name}: not read to its end, which may be torn")
        self.problem = "; ".join(problems)
        self._take(found)

    def _name(self, path: str) -> str:
        return os.path.relpath(path, self._base)

    @staticmethod
    def _size(path: str) -> int | None:
        try:
            return os.path.getsize(path)
        except OSError:
            return None

    def _take(self, scalars: list[tfevents.Scalar]) -> None:
        if not self._wanted_tag:
            self._tag = best_tag(self._tag, [scalar.tag for scalar in scalars])
        of_loss = [scalar for scalar in scalars if scalar.tag == self._tag]
        if of_loss:
            loss = of_loss[-1].value if math.isfinite(of_loss[-1].value) else None
            self.reached = replace(self.reached, step=of_loss[-1].step, loss=loss)
        elif scalars and not self._tag:
            self.reached = replace(self.reached, step=max(scalar.step for scalar in scalars))
        of_epoch = [scalar for scalar in scalars if scalar.tag.lower() in ("epoch", "train/epoch")]
        if of_epoch and math.isfinite(of_epoch[-1].value):
            self.reached = replace(self.reached, epoch=of_epoch[-1].value)
        self._tell(of_loss if self._tag else scalars, {scalar.step: scalar.value for scalar in of_epoch})

    def _tell(self, scalars: list[tfevents.Scalar], epochs: dict[int, float]) -> None:
        """Without a tag of the loss only the steps of all scalars are known."""
        for scalar in scalars:
            loss = scalar.value if self._tag else None
            self.told.append(Reached(step=scalar.step, epoch=epochs.get(scalar.step), loss=loss))

    def kept(self) -> dict[str, Any]:
        return {"offsets": self._offsets, "tag": self._tag}


def event_files(folder: str) -> list[str]:
    """The event files below ``folder``, the newest first; a bounded number, found in a bounded number of entries."""
    found: list[tuple[float, str]] = []
    entries = 0
    for where, folders, names in os.walk(folder):
        entries += len(folders) + len(names)
        if entries > MOST_ENTRIES:
            break
        for name in names:
            if name.startswith(tfevents.PREFIX):
                # A name that is not UTF-8 cannot be put into a record.
                with contextlib.suppress(OSError, UnicodeEncodeError):
                    path = os.path.join(where, name)
                    path.encode("utf-8")
                    info = os.lstat(path)
                    if stat.S_ISREG(info.st_mode):
                        found.append((info.st_mtime, path))
    return [path for _mtime, path in sorted(found, reverse=True)[:MOST_FILES]]


def best_tag(known: str, tags: list[str]) -> str:
    """The tag that looks most like the loss of the training; the one known already unless a plainer one appears."""
    best, rank = known, _rank(known)
    for tag in tags:
        if _rank(tag) < rank:
            best, rank = tag, _rank(tag)
    return best


def _rank(tag: str) -> int:
    words = _WORD.findall(tag.lower())
    if "loss" not in words or _NOT_TRAINING.intersection(words):
        return 2
    return 0 if tag.lower() in _PLAIN_LOSS else 1


class LogLines(Source):
    """The user's pattern over the log of the attempt."""

    def __init__(
        self, paths: AttemptPaths, wanted: dict[str, Any], kept: dict[str, Any], clock: Callable[[], float]
    ) -> None:
        super().__init__(wanted, kept, clock)
        self._path = paths.log
        self._pattern = log_pattern.compiled(wanted["pattern"])
        offset = kept.get("offset")
        self._offset = offset if records.is_count(offset) else 0
        self._rest_s, self._not_before = LEAST_REST_S, 0.0

    def _look(self, last: bool) -> None:
        if self._clock() < self._not_before:
            return
        with contextlib.suppress(FileNotFoundError):
            self._finish_rotated()
            self._take(log_pattern.look(self._path, self._offset, self._pattern, whole=last))

    def _finish_rotated(self) -> None:
        """What the log held before it was rotated is read to its end first, as far as it was kept."""
        if os.path.getsize(self._path) >= self._offset:
            return
        with contextlib.suppress(OSError):
            before = run_log.earlier(self._path)
            if os.path.getsize(before) >= self._offset:
                self._take(log_pattern.look(before, self._offset, self._pattern, whole=True))
        self._offset = 0

    def _take(self, seen: log_pattern.Look) -> None:
        self._offset, self.problem = seen.offset, seen.problem
        if seen.problem:
            self._not_before = self._clock() + self._rest_s
            self._rest_s = min(2 * self._rest_s, MOST_REST_S)
        self._tell(seen.lines)
        found = seen.found
        fresh: dict[str, Any] = {"step": found.step, "steps": found.total, "epoch": found.epoch, "loss": found.loss}
        self.reached = replace(self.reached, **{key: value for key, value in fresh.items() if value is not None})

    def _tell(self, lines: tuple[log_pattern.Found, ...]) -> None:
        """A line without a step says more of the one before it."""
        step = self.reached.step
        for found in lines:
            step = step if found.step is None else found.step
            if step is not None:
                self.told.append(Reached(step, found.total, found.epoch, found.loss))

    def kept(self) -> dict[str, Any]:
        return {"offset": self._offset}


_KINDS = {METRICS: Metrics, TENSORBOARD: EventFiles, REGEX: LogLines}


def open_source(
    paths: AttemptPaths, wanted: dict[str, Any], kept: dict[str, Any], clock: Callable[[], float] = time.monotonic
) -> Source:
    """The source that a checked ``progress`` mapping names. ``kept``: of its record, or empty."""
    source: Source = _KINDS[wanted["source"]](paths, wanted, kept, clock)
    return source
